//! What the documents name is there: files that they link to, constants that they list.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::root;

/// Directories with documents.
const DIRECTORIES: [&str; 3] = ["", "docs", "docs/decisions"];

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    assert!(documents.len() > 8, "documents are missing: {documents:?}");
    let mut broken = Vec::new();
    for document in &documents {
        let directory = document.parent().expect("it lies in the repository");
        for target in links(&read(document)) {
            let file = target.split_once('#').map_or(&*target, |(file, _)| file);
            if !directory.join(file).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links to what is not there: {broken:#?}");
}

#[test]
fn listed_limits_are_constants() {
    let operations = read(&root().join("docs/operations.md"));
    let (_, limits) = operations.split_once("\n## Limits\n").expect("a section of limits");
    let limits = limits.split_once("\n## ").map_or(limits, |(section, _)| section);
    let names: Vec<_> = limits.split('`').skip(1).step_by(2).filter(|name| is_name(name)).collect();
    assert!(names.len() > 20, "names are missing: {names:?}");
    let mut code = String::new();
    read_sources(&root().join("crates"), &mut code);
    for path in names {
        let name = path.rsplit("::").next().unwrap_or(path);
        assert!(code.contains(&format!("const {name}:")), "there is no constant {path}");
    }
}

fn is_name(text: &str) -> bool {
    let name = text.rsplit("::").next().unwrap_or(text);
    name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn documents() -> Vec<PathBuf> {
    DIRECTORIES
        .iter()
        .flat_map(|directory| entries(&root().join(directory)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// Targets of inline links that are not URLs.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

fn read_sources(directory: &Path, code: &mut String) {
    for path in entries(directory) {
        if path.is_dir() {
            read_sources(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&read(&path));
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the repository can be read");
    entries.map(|entry| entry.expect("the repository can be read").path()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
