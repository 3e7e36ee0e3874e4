//! Files and folders that tools create again: caches, dependencies and build results. They are not work.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Files that mark a folder as regenerable: <https://bford.info/cachedir/>, and the one of Python environments.
const MARKS: [&str; 2] = ["CACHEDIR.TAG", "pyvenv.cfg"];

/// The mark that has a signature, and this signature.
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_TAG_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Names of folders that package managers, compilers and test runners fill.
const REGENERABLE_FOLDERS: [&str; 41] = [
    "node_modules",
    "bower_components",
    ".pnpm-store",
    ".yarn",
    ".npm",
    "target",
    "build",
    "dist",
    "out-tsc",
    ".next",
    ".nuxt",
    ".svelte-kit",
    ".turbo",
    ".parcel-cache",
    ".angular",
    ".cache",
    "__pycache__",
    ".venv",
    "venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".eggs",
    ".gradle",
    ".kotlin",
    "bin",
    "obj",
    "Pods",
    "DerivedData",
    ".build",
    ".dart_tool",
    "_build",
    "deps",
    "elm-stuff",
    ".terraform",
    "coverage",
    ".nyc_output",
    ".bundle",
];
/// Endings of files that compilers, test runners and editors leave.
const REGENERABLE_ENDINGS: [&str; 19] = [
    ".pyc",
    ".pyo",
    ".o",
    ".obj",
    ".class",
    ".a",
    ".so",
    ".dylib",
    ".dll",
    ".exe",
    ".gcda",
    ".gcno",
    ".tsbuildinfo",
    ".swp",
    ".swo",
    ".egg-info",
    ".DS_Store",
    ".eslintcache",
    ".coverage",
];

/// Returns whether the path is, or lies in, what package managers, compilers and test runners create.
pub(super) fn is_regenerable(worktree: &Path, path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let in_regenerable = path
        .ancestors()
        .skip(1)
        .filter_map(Path::file_name)
        .any(|folder| REGENERABLE_FOLDERS.iter().any(|known| folder == *known));
    let absolute = worktree.join(path);
    in_regenerable
        || REGENERABLE_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || absolute.is_dir() && (REGENERABLE_FOLDERS.contains(&name.as_str()) || is_marked_regenerable(&absolute))
}

/// Returns whether a folder has a mark that tools can create it again.
pub(super) fn is_marked_regenerable(folder: &Path) -> bool {
    MARKS.iter().any(|mark| folder.join(mark).is_file())
}

/// Returns whether a folder has a `CACHEDIR.TAG` with the right signature that is a regular file.
pub(super) fn has_cache_tag(folder: &Path) -> bool {
    let tag = folder.join(CACHE_TAG);
    let mut start = [0; CACHE_TAG_SIGNATURE.len()];
    tag.symlink_metadata().is_ok_and(|found| found.is_file())
        && File::open(tag).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == *CACHE_TAG_SIGNATURE
}
