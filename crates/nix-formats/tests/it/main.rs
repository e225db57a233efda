//! The formats against real Nix's files, and the NAR codec against trees and damage.

mod golden;
mod nar_damage;
mod nar_round_trip;
mod tree;
