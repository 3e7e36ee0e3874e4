//! What the README claims is held by tests: each name in the last column of these sections' tables is a test that is
//! there.

use std::fs;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 2] = ["## Clients", "## What it promises"];

#[test]
fn every_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let sources = sources(root);
    for section in SECTIONS {
        let Some(text) = section_of(&readme, section) else { continue };
        let names = names_in(text);
        assert!(!names.is_empty(), "{section} names no tests");
        let missing: Vec<&str> = names.into_iter().filter(|name| !is_there(name, &sources)).collect();
        assert!(missing.is_empty(), "{section} names tests that are not there: {missing:#?}");
    }
    assert!(section_of(&readme, SECTIONS[0]).is_some(), "the README says what each client can do");
}

#[test]
fn only_a_function_in_the_named_file_counts() {
    let sources = [(PathBuf::from("tests/real/waits.rs"), "async fn it_waits(world: &World) {}".to_owned())];
    for name in ["it_waits", "waits::it_waits", "real::it_waits", "real::waits::it_waits"] {
        assert!(is_there(name, &sources), "{name}");
    }
    for name in ["it_wait", "t_waits", "setup::it_waits", "waits::"] {
        assert!(!is_there(name, &sources), "{name}");
    }
    let table = "| a | held by |\n|---|---|\n| `x` | `one`, `m::two` |\ntext `three`\n";
    assert_eq!(names_in(table), ["one", "m::two"]);
}

fn section_of<'a>(readme: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = readme.split_once(&format!("\n{heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest))
}

/// What stands in backticks in the last column.
fn names_in(section: &str) -> Vec<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|'));
    let last = rows.filter_map(|row| row.rsplit('|').next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// What stands before the function's name must be in the path of its file.
fn is_there(name: &str, sources: &[(PathBuf, String)]) -> bool {
    let mut path: Vec<&str> = name.split("::").collect();
    let Some(function) = path.pop().filter(|function| !function.is_empty()) else { return false };
    let defined = [format!(" {function}("), format!(" {function}<")].map(|end| format!("fn{end}"));
    sources.iter().any(|(file, text)| {
        let file = file.with_extension("");
        let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
        path.iter().all(|part| parts.contains(part)) && defined.iter().any(|defined| text.contains(defined))
    })
}

/// All Rust files of src and tests, by their path from the root.
fn sources(root: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the sources").flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "node_modules" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                sources.push((path.strip_prefix(root).expect("it is below it").to_owned(), text));
            }
        }
    }
    sources
}
