//! Which crate of the workspace may depend on which.

use super::Metadata;

const PREFIX: &str = "granary-";

/// May be a development dependency of every crate, and another dependency only of
/// [`FUZZING`].
const TESTKIT: &str = "testkit";

/// Nothing in the workspace depends on it.
const FUZZING: &str = "fuzzing";

/// Each crate, and those of ours that it may depend on to be built. Further ones may only
/// be development dependencies.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("nix-formats", &[]),
    ("castore", &[]),
    ("tables", &[]),
    ("engine", &["castore", "tables"]),
    ("store", &["castore", "nix-formats"]),
    ("proto", &["castore", "nix-formats", "store"]),
    ("client", &["castore", "nix-formats", "proto", "store"]),
    ("server", &["castore", "nix-formats", "proto", "store"]),
    ("cli", &["castore", "client", "engine", "nix-formats", "proto", "server", "store"]),
    (TESTKIT, &["castore", "engine", "nix-formats", "store"]),
    (FUZZING, &["castore", "engine", "nix-formats", "proto", "server", "store", "tables", TESTKIT]),
];

#[test]
fn every_crate_keeps_to_its_place() {
    let mut breaches = Vec::new();
    for package in Metadata::of_the_workspace().ours() {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(name, _)| is(&package.name, name))
        else {
            breaches.push(format!("{} has no place in the graph", package.name));
            continue;
        };
        let needed = package.dependencies.iter().filter(|dependency| {
            dependency.name.starts_with(PREFIX) && dependency.kind.as_deref() != Some("dev")
        });
        for dependency in needed {
            if !allowed.iter().any(|name| is(&dependency.name, name)) {
                breaches.push(format!("{} depends on {}", package.name, dependency.name));
            }
        }
    }
    assert!(breaches.is_empty(), "against the graph in ARCHITECTURE.md: {breaches:#?}");
}

#[test]
fn nothing_depends_on_fuzzing() {
    for package in Metadata::of_the_workspace().ours() {
        let mut dependencies = package.dependencies.iter();
        assert!(dependencies.all(|dependency| !is(&dependency.name, FUZZING)), "{}", package.name);
    }
}

#[test]
fn the_graph_names_crates_that_exist() {
    let metadata = Metadata::of_the_workspace();
    for (name, _) in MAY_DEPEND_ON {
        assert!(metadata.ours().any(|package| is(&package.name, name)), "there is no {name}");
    }
}

fn is(package: &str, name: &str) -> bool {
    package.strip_prefix(PREFIX) == Some(name)
}
