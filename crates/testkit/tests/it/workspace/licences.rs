//! Under which licences the crates of others may come: those that `deny.toml` allows.

use std::fs;

use serde::Deserialize;

use super::{Metadata, root};

/// What of `deny.toml` is of interest here. cargo-deny reads the same list.
#[derive(Deserialize)]
struct DenyToml {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let allowed = allowed();
    let mut refused = Vec::new();
    for package in Metadata::of_the_workspace().of_others() {
        let expression = package.license.as_deref().unwrap_or_default();
        let problem = match permits(expression, &allowed) {
            Some(true) => continue,
            Some(false) => "none of it is allowed",
            None => "that is no licence expression",
        };
        refused.push(format!("{} {}: {expression:?}: {problem}", package.name, package.version));
    }
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn our_own_crates_say_theirs() {
    for package in Metadata::of_the_workspace().ours() {
        assert_eq!(package.license.as_deref(), Some("MIT OR Apache-2.0"), "{}", package.name);
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(root().join(file).is_file(), "{file} is missing");
    }
}

#[test]
fn expressions_mean_what_spdx_says() {
    let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let permits = |expression| permits(expression, &allowed);
    for expression in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only/MIT",
        "GPL-3.0-only / MIT",
        "(GPL-3.0-only OR MIT) AND Zlib",
        "GPL-3.0-only AND X11 OR MIT",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert_eq!(permits(expression), Some(true), "{expression}");
    }
    for expression in [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "MIT AND (GPL-3.0-only OR X11)",
        "Apache-2.0",
        "MIT WITH LLVM-exception",
    ] {
        assert_eq!(permits(expression), Some(false), "{expression}");
    }
    for expression in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Zlib", "MIT WITH"] {
        assert_eq!(permits(expression), None, "{expression}");
    }
}

fn allowed() -> Vec<String> {
    let text = fs::read_to_string(root().join("deny.toml")).expect("deny.toml can be read");
    toml::from_str::<DenyToml>(&text).expect("deny.toml has a list of licences").licenses.allow
}

/// Whether the licence expression (SPDX, or its older form with slashes) is met by the
/// allowed ones; `None` if it is none.
fn permits(expression: &str, allowed: &[String]) -> Option<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = Words { rest: spaced.split_whitespace().collect(), allowed };
    words.rest.reverse();
    let permitted = words.any_of()?;
    words.rest.is_empty().then_some(permitted)
}

/// What is left of an expression, the next word last.
struct Words<'a> {
    rest: Vec<&'a str>,
    allowed: &'a [String],
}

impl Words<'_> {
    fn any_of(&mut self) -> Option<bool> {
        let mut permitted = self.all_of()?;
        while self.take("OR") {
            permitted |= self.all_of()?;
        }
        Some(permitted)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut permitted = self.one()?;
        while self.take("AND") {
            permitted &= self.one()?;
        }
        Some(permitted)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let permitted = self.any_of()?;
            return self.take(")").then_some(permitted);
        }
        let mut licence = self.name()?.to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.name()?);
        }
        Some(self.allowed.contains(&licence))
    }

    fn name(&mut self) -> Option<&str> {
        let word = self.rest.pop()?;
        (!["OR", "AND", "WITH", "(", ")"].contains(&word)).then_some(word)
    }

    fn take(&mut self, word: &str) -> bool {
        self.rest.pop_if(|next| *next == word).is_some()
    }
}
