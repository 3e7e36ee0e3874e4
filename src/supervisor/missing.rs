//! The files that a worktree lacks because git does not bring them into it: installed dependencies, submodules, local
//! files. They are ordered by the evidence in the output of a failed verification.

use std::path::Path;

use crate::git::{self, Repository};
use crate::mission::outcome::{Missing, MissingKind, Verification};

/// Lists the files that a worktree lacks, in the order of the evidence in the command's output. Untracked
/// files count only if the output names them.
pub(super) fn missing(repository: &Repository, worktree: &Path, found: &Verification) -> Vec<Missing> {
    if matches!(found, Verification::Passed { .. }) {
        return Vec::new();
    }
    let Some(main) = &repository.main_worktree else { return Vec::new() };
    let output = found.note().unwrap_or_default();
    let lacks = git::lacks(&repository.at(main), &repository.at(worktree)).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the files that the worktree lacks");
        Vec::new()
    });
    let name = |folder: &Path| Some(folder.file_name()?.to_string_lossy().into_owned());
    let roots: Vec<String> = [worktree, main].into_iter().filter_map(name).collect();
    ranked(&output, main, &roots, lacks)
}

fn ranked(output: &str, main: &Path, roots: &[String], lacks: Vec<Missing>) -> Vec<Missing> {
    let ranked = lacks.into_iter().map(|lack| (evidence(output, main, roots, &lack), lack));
    let mut ranked: Vec<_> = ranked.filter(|(rank, lack)| *rank > 0 || lack.kind != MissingKind::Untracked).collect();
    // The longer path is more specific: `app/node_modules` contains the name `node_modules`.
    ranked.sort_by_key(|(rank, lack)| std::cmp::Reverse((*rank, if *rank > 1 { lack.path.len() } else { 0 })));
    let best = ranked.first().map_or(0, |(rank, _)| *rank);
    ranked.into_iter().map(|(rank, lack)| Missing { named: rank > 0 && rank == best, ..lack }).collect()
}

/// Returns how surely the output points to a missing file or folder: 3 by its path, 2 by its name, 1 by the words of a
/// package manager or shell, 0 not at all. `roots` are the names of the folders that contain the repository's files.
fn evidence(output: &str, main: &Path, roots: &[String], lack: &Missing) -> u8 {
    let path = Path::new(&lack.path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folders: Vec<String> = match path.parent().and_then(Path::file_name) {
        Some(parent) => vec![parent.to_string_lossy().into_owned()],
        None => roots.to_vec(),
    };
    if mentions(output, &lack.path, roots) {
        3
    } else if mentions(output, &name, &folders) {
        2
    } else {
        u8::from(lack.kind == MissingKind::Dependencies && misses_installed(output, &name, &main.join(&lack.path)))
    }
}

/// Returns whether the text has this path or name, not only as a part of a longer word, and not in another folder than
/// `folders`. A name that may be a word of prose (`data`, `node_modules`) counts only beside a slash or on a line about
/// something that is missing.
fn mentions(output: &str, path: &str, folders: &[String]) -> bool {
    const MISSING: [&str; 6] = ["No such file", "ENOENT", "not found", "Cannot find", "does not exist", "missing"];
    let is_name_part = |it: char| it.is_alphanumeric() || "._-".contains(it);
    let is_word = path.chars().all(|it| it.is_alphanumeric() || it == '_');
    output.lines().any(|line| {
        let about = MISSING.iter().any(|words| line.contains(words));
        !path.is_empty()
            && line.match_indices(path).any(|(at, _)| {
                let (before, after) = (line[..at].chars().next_back(), line[at + path.len()..].chars().next());
                // A full stop may end the sentence.
                let goes_on = match after {
                    Some('.') => line[at + path.len() + 1..].starts_with(is_name_part),
                    after => after.is_some_and(is_name_part),
                };
                let bounded = !before.is_some_and(is_name_part) && !goes_on && is_in_one_of(folders, &line[..at]);
                bounded && (!is_word || about || before == Some('/') || after == Some('/'))
            })
    })
}

/// Returns whether a path that begins as `before` is in one of these folders, or does not name its folder.
fn is_in_one_of(folders: &[String], before: &str) -> bool {
    let Some(before) = before.strip_suffix('/') else { return true };
    let is_name_part = |it: char| it.is_alphanumeric() || "._-@~".contains(it);
    let folder = before.rsplit(|it| !is_name_part(it)).next().unwrap_or_default();
    ["", ".", "..", "@", "~"].contains(&folder) || folders.iter().any(|it| it == folder)
}

/// Returns whether a package manager or a shell missed something that this folder of installed dependencies has.
/// `folder` is that of the main checkout.
fn misses_installed(output: &str, name: &str, folder: &Path) -> bool {
    let has_any = |words: &[&str]| words.iter().any(|words| output.contains(words));
    let modules = || {
        let named =
            ["Cannot find module ", "Cannot find package "].iter().flat_map(|words| output.split(words).skip(1));
        named.map(|rest| rest.trim_start_matches(['\'', '"', '`'])).any(|rest| !rest.starts_with(['.', '/']))
    };
    let by_manager = match name {
        "node_modules" | ".pnp.cjs" => modules(),
        "vendor" | "bundle" | ".bundle" => has_any(&["vendor/autoload.php", "cannot find package", "bundler: failed"]),
        _ if folder.join("pyvenv.cfg").exists() || name == "site-packages" => {
            has_any(&["ModuleNotFoundError", "No module named"])
        }
        _ => false,
    };
    by_manager || commands_not_found(output).any(|command| has_program(folder, command))
}

/// Returns the commands that a shell did not find: `sh: 1: tsc: not found`, `bash: line 1: tsc: command not found`.
fn commands_not_found(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| {
        let before = line.split_once(": command not found").or_else(|| line.split_once(": not found"))?.0;
        before.rsplit(": ").next().map(str::trim).filter(|command| !command.is_empty() && !command.contains('/'))
    })
}

fn has_program(folder: &Path, command: &str) -> bool {
    [".bin", "bin"].iter().any(|place| folder.join(place).join(command).exists())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lack(path: &str) -> Missing {
        Missing { path: path.to_owned(), kind: MissingKind::Dependencies, named: false }
    }

    #[test]
    fn files_named_in_output_come_first() {
        let main = tempfile::tempdir().unwrap();
        for path in ["node_modules/.bin/tsc", ".venv/pyvenv.cfg"] {
            let path = main.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let named = |output: &str| {
            use MissingKind::{LocalFile, Untracked};
            let rest = [(".env", LocalFile), ("gen", Untracked), ("data", LocalFile)];
            let rest = rest.map(|(path, kind)| Missing { kind, ..lack(path) });
            let folders = [".venv", "node_modules", "pkg/app/node_modules"].map(lack);
            let roots = ["w-1-fix".to_owned()];
            let found = ranked(output, main.path(), &roots, folders.into_iter().chain(rest).collect());
            found.into_iter().filter(|lack| lack.named).map(|lack| lack.path).collect::<Vec<_>>()
        };
        let cases: [(&str, &[&str]); 20] = [
            ("cat: .env: No such file or directory", &[".env"]),
            ("could not read .env.", &[".env"]),
            ("cat: gen/g.js: No such file or directory", &["gen"]),
            ("cat: data: No such file or directory", &["data"]),
            ("cat: node_modules/y/i: No such file", &["node_modules"]),
            ("open pkg/app/node_modules/y: no", &["pkg/app/node_modules"]),
            ("cannot open /repo.worktrees/w-1-fix/gen/g.js", &["gen"]),
            ("cannot open ../gen/g.js", &["gen"]),
            ("FAIL tests/gen/api.test.js: expected 1", &[]),
            ("cannot open /repo.worktrees/w-1-fix/tests/gen/g.js", &[]),
            ("warning: node_modules is ignored by eslint", &[]),
            ("node_modules missing, run npm install", &["node_modules"]),
            ("Error: Cannot find module 'left-pad'", &["node_modules", "pkg/app/node_modules"]),
            ("Error: Cannot find module './left'", &[]),
            ("ModuleNotFoundError: No module named 'yaml'", &[".venv"]),
            ("sh: 1: tsc: not found", &["node_modules"]),
            ("sh: 1: no-such-cmd: not found", &[]),
            ("expected data to be 1, generated .env.example and .environment", &[]),
            ("1 test failed", &[]),
            ("", &[]),
        ];
        for (output, expected) in cases {
            assert_eq!(named(output), expected, "{output}");
        }
    }
}
