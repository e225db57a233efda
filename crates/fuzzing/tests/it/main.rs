//! The committed corpus, replayed.

mod corpus;
