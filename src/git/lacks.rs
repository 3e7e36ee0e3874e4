//! Files that the main checkout has and a worktree lacks, because git does not copy them into a new worktree. They may
//! explain why a command failed there, so they are listed only after a failure.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::command::{CommandError, Git};
use super::records::links;
use super::trust::Checkout;
use crate::mission::outcome::{Missing, MissingKind};

/// Folders and files that package managers fill, each with the manifests of which one must lie beside it. An empty list
/// requires none.
const INSTALLED: [(&str, &[&str]); 17] = [
    ("node_modules", &[]),
    ("bower_components", &[]),
    ("jspm_packages", &[]),
    (".pnp.cjs", &[]),
    (".venv", &[]),
    ("venv", &[]),
    ("env", &["pyproject.toml", "requirements.txt", "setup.py", "Pipfile"]),
    ("__pypackages__", &[]),
    ("site-packages", &[]),
    ("vendor", &["composer.json", "go.mod", "Gemfile", "Cargo.toml", "package.json"]),
    ("bundle", &[]),
    (".bundle", &[]),
    ("deps", &["mix.exs", "rebar.config"]),
    ("Pods", &["Podfile"]),
    ("Carthage", &[]),
    ("elm-stuff", &["elm.json"]),
    (".terraform", &[]),
];

/// Names of files and folders that are regenerated automatically or irrelevant.
const IRRELEVANT: [&str; 20] = [
    ".orchestrator",
    ".git",
    ".DS_Store",
    ".idea",
    ".vscode",
    ".cache",
    ".claude",
    ".codex",
    ".gemini",
    ".opencode",
    ".gradle",
    ".mypy_cache",
    ".nyc_output",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    "__pycache__",
    "coverage",
    "target",
    "tmp",
];

/// Maximum number of untracked entries of the main checkout that are examined.
const MOST: usize = 20_000;

/// Returns everything that `worktree` lacks, the most likely causes of a failure first. `main` and `worktree` are root
/// folders.
pub fn lacks(main: &Checkout, worktree: &Checkout) -> Result<Vec<Missing>, CommandError> {
    let mut lacks = untracked(main, worktree)?;
    lacks.extend(submodules(main, worktree)?);
    lacks.extend(filtered(main, worktree, "lfs", MissingKind::LargeFile, b"version https://git-lfs.github.com/spec/")?);
    lacks.extend(filtered(main, worktree, "git-crypt", MissingKind::Encrypted, b"\0GITCRYPT\0")?);
    lacks.sort_by_key(|lack| (lack.kind as u8, lack.path.clone()));
    Ok(lacks)
}

/// Returns whether `worktree` has installed dependencies, submodule files, decoded files or local settings that `other`
/// lacks. Other untracked files, such as build results, do not count.
pub fn is_better_equipped(worktree: &Checkout, other: &Checkout) -> Result<bool, CommandError> {
    let strong = |lack: &Missing| !matches!(lack.kind, MissingKind::Untracked);
    Ok(lacks(worktree, other)?.iter().any(strong))
}

fn untracked(main: &Checkout, worktree: &Path) -> Result<Vec<Missing>, CommandError> {
    let listed = Git::read(main).args(["ls-files", "-z", "--others", "--directory", "--no-empty-directory"]).run()?;
    let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()).take(MOST);
    let paths = paths.map(|path| Path::new(OsStr::from_bytes(path)));
    let missing =
        paths.filter(|path| is_relevant(path) && is_empty(&worktree.join(path)) && !is_empty(&main.join(path)));
    // If the branch does not have the parent folder, it removed that folder as a whole, and nothing is missing.
    let has_place = |path: &&Path| path.parent().is_none_or(|parent| worktree.join(parent).is_dir());
    Ok(missing.filter(has_place).map(|path| lack(path, kind_of(main, path))).collect())
}

fn is_relevant(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_temporary =
        name.ends_with('~') || [".log", ".swp", ".pyc", ".tmp", ".pid"].iter().any(|end| name.ends_with(end));
    !is_temporary && !path.iter().any(|part| IRRELEVANT.iter().any(|it| part == OsStr::new(it)))
}

/// Returns whether the path does not exist or is an empty folder.
fn is_empty(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()),
        Ok(_) => false,
        Err(_) => true,
    }
}

fn kind_of(main: &Path, path: &Path) -> MissingKind {
    let name = path.file_name().unwrap_or_default();
    let beside = main.join(path).parent().map(Path::to_owned).unwrap_or_default();
    let is_installed = |(folder, manifests): &(&str, &[&str])| {
        name == OsStr::new(folder) && (manifests.is_empty() || manifests.iter().any(|it| beside.join(it).exists()))
    };
    let is_environment = main.join(path).join("pyvenv.cfg").exists();
    if INSTALLED.iter().any(is_installed) || is_environment {
        return MissingKind::Dependencies;
    }
    let name = name.to_string_lossy();
    let local = name.starts_with(".env") || name.contains(".local") || name.contains("secret");
    if local { MissingKind::LocalFile } else { MissingKind::Untracked }
}

fn submodules(main: &Path, worktree: &Checkout) -> Result<Vec<Missing>, CommandError> {
    let paths = links(worktree)?.into_iter().map(|link| link.path);
    let missing = paths.filter(|path| is_empty(&worktree.join(path)) && !is_empty(&main.join(path)));
    Ok(missing.map(|path| lack(&path, MissingKind::Submodule)).collect())
}

/// Returns files of a filter that are unfiltered in the worktree, but not in the main checkout. Unfiltered content
/// begins with `raw`.
fn filtered(
    main: &Path,
    worktree: &Checkout,
    filter: &str,
    kind: MissingKind,
    raw: &[u8],
) -> Result<Vec<Missing>, CommandError> {
    /// Maximum number of files listed for one filter. A few are enough to identify the cause.
    const NAMED: usize = 3;
    let listed = Git::read(worktree).args(["ls-files", "-z", "--", &format!(":(attr:filter={filter})")]).run()?;
    let paths =
        listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(|path| Path::new(OsStr::from_bytes(path)));
    let is_raw = |path: &Path| begins_with(path, raw);
    let missing =
        paths.filter(|path| is_raw(&worktree.join(path)) && main.join(path).exists() && !is_raw(&main.join(path)));
    Ok(missing.take(NAMED).map(|path| lack(path, kind)).collect())
}

fn begins_with(path: &Path, beginning: &[u8]) -> bool {
    let mut read = vec![0; beginning.len()];
    fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut read).is_ok() && read == beginning)
}

fn lack(path: &Path, kind: MissingKind) -> Missing {
    Missing { path: path.to_string_lossy().trim_end_matches('/').to_owned(), kind, named: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at, check_out_submodules, write};
    use std::path::PathBuf;

    fn worktree(fixture: &Fixture) -> PathBuf {
        let path = fixture.beside("worktree");
        fixture.git(&["worktree", "add", "-q", "-b", "work", path.to_str().unwrap()]);
        path
    }

    fn found(fixture: &Fixture, worktree: &Path) -> Vec<(String, MissingKind)> {
        lacks(&at(fixture.root()), &at(worktree)).unwrap().into_iter().map(|lack| (lack.path, lack.kind)).collect()
    }

    #[test]
    fn dependencies_and_local_files_are_listed() {
        let fixture = Fixture::new();
        let ignored = "node_modules\n.venv\nmyenv\nvendor/\n.env*\ngen/\ntarget\n*.log\n__pycache__\n";
        fixture.commit(".gitignore", ignored);
        for manifest in ["package.json", "packages/a/package.json", "php/composer.json", "go/main.go", "src/x.py"] {
            fixture.commit(manifest, "x\n");
        }
        let worktree = worktree(&fixture);
        assert_eq!(found(&fixture, &worktree), []);
        let made = [
            "node_modules/x/index.js",
            "packages/a/node_modules/y/index.js",
            ".venv/pyvenv.cfg",
            "myenv/pyvenv.cfg",
            "php/vendor/autoload.php",
            "go/vendor/x.go",
            ".env",
            "gen/api.ts",
            "not-added.ts",
            "target/debug/x",
            "a.log",
            "src/__pycache__/x.pyc",
            ".orchestrator/journal",
            "new/folder.txt",
        ];
        for path in made {
            fixture.write(path, "x\n");
        }
        use MissingKind::*;
        let expected = [
            (".venv", Dependencies),
            ("myenv", Dependencies),
            ("node_modules", Dependencies),
            ("packages/a/node_modules", Dependencies),
            ("php/vendor", Dependencies),
            (".env", LocalFile),
            ("gen", Untracked),
            ("go/vendor", Untracked),
            ("new", Untracked),
            ("not-added.ts", Untracked),
        ];
        assert_eq!(found(&fixture, &worktree), expected.map(|(path, kind)| (path.to_owned(), kind)));
        assert!(is_better_equipped(&at(fixture.root()), &at(&worktree)).unwrap());
        for path in ["node_modules/x", ".venv/x", "packages/a/node_modules/x", "php/vendor/x", "myenv/x", ".env"] {
            write(&worktree, path, "x");
        }
        assert!(found(&fixture, &worktree).iter().all(|(_, kind)| *kind == Untracked));
        assert!(!is_better_equipped(&at(fixture.root()), &at(&worktree)).unwrap());
    }

    #[test]
    fn empty_submodules_and_unfiltered_files_are_listed() {
        let fixture = Fixture::new();
        fixture.add_library();
        fixture.commit(".gitattributes", "*.bin filter=lfs -text\n*.key filter=git-crypt -text\n");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        fixture.commit("big.bin", pointer);
        fixture.commit("a.key", "\0GITCRYPT\0cipher");
        let worktree = worktree(&fixture);
        // The content that the filters would have produced.
        fixture.write("big.bin", "content\n");
        fixture.write("a.key", "plain\n");
        use MissingKind::*;
        let expected = [("lib", Submodule), ("big.bin", LargeFile), ("a.key", Encrypted)];
        assert_eq!(found(&fixture, &worktree), expected.map(|(path, kind)| (path.to_owned(), kind)));
        check_out_submodules(&worktree);
        assert!(!found(&fixture, &worktree).iter().any(|(_, kind)| *kind == Submodule));
    }
}
