//! The caches of build tools that confined workers share with the user. Only what was downloaded or built is in them:
//! no folder is on the PATH, since a worker could then replace the user's programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::process::confine::{GrantKind, Links, WriteRules};

/// A folder that a tool writes in any project.
struct Cache {
    /// The variable that names the folder, or the folder above `below`.
    variable: &'static str,
    /// The folder without the variable, relative to the home folder.
    default: &'static str,
    below: &'static [&'static str],
    /// The tool that fails without it, so that it is created if the tool is installed.
    needed_by: Option<&'static str>,
}

const fn cache(variable: &'static str, default: &'static str) -> Cache {
    Cache { variable, default, below: &[], needed_by: None }
}

const CACHES: [Cache; 18] = [
    Cache { needed_by: Some("npm"), below: &["_cacache", "_logs"], ..cache("npm_config_cache", ".npm") },
    Cache { needed_by: Some("cargo"), below: &["registry", "git"], ..cache("CARGO_HOME", ".cargo") },
    Cache { needed_by: Some("go"), ..cache("GOCACHE", ".cache/go-build") },
    Cache { needed_by: Some("go"), ..cache("GOMODCACHE", "go/pkg/mod") },
    Cache { needed_by: Some("uv"), ..cache("UV_CACHE_DIR", ".cache/uv") },
    cache("PIP_CACHE_DIR", ".cache/pip"),
    cache("YARN_CACHE_FOLDER", ".cache/yarn"),
    cache("", ".yarn/berry/cache"),
    cache("", ".local/share/pnpm/store"),
    cache("", ".cache/pnpm"),
    cache("BUN_INSTALL_CACHE_DIR", ".bun/install/cache"),
    cache("DENO_DIR", ".cache/deno"),
    cache("", ".cache/node-gyp"),
    cache("PRE_COMMIT_HOME", ".cache/pre-commit"),
    cache("CCACHE_DIR", ".cache/ccache"),
    cache("SCCACHE_DIR", ".cache/sccache"),
    Cache { below: &["caches", "daemon", "wrapper"], ..cache("GRADLE_USER_HOME", ".gradle") },
    cache("", ".m2/repository"),
];

/// Locks of Cargo. Without them it works, but takes no lock.
const CARGO_LOCKS: [&str; 3] = [".package-cache", ".package-cache-mutate", ".global-cache"];

/// Adds the caches of this user that exist, and those without which an installed tool fails.
pub fn grant(rules: &mut WriteRules, home: &Path, variable: impl Fn(&str) -> Option<OsString>) {
    let path = variable("PATH").unwrap_or_default();
    let is_installed = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let top_of = |cache: &Cache| folder(variable(cache.variable), &home.join(cache.default));
    for cache in &CACHES {
        let top = top_of(cache);
        let inner: Vec<PathBuf> = cache.below.iter().map(|inner| top.join(inner)).collect();
        for folder in if inner.is_empty() { vec![top] } else { inner } {
            if !folder.is_dir() && cache.needed_by.is_some_and(is_installed) {
                // Where it cannot be created, the tool fails as it does for the user.
                let _ = std::fs::create_dir_all(&folder);
            }
            if folder.is_dir() && !home.starts_with(&folder) {
                rules.add(&folder, GrantKind::Folder, Links::Followed);
            }
        }
    }
    let cargo = folder(variable("CARGO_HOME"), &home.join(".cargo"));
    for lock in CARGO_LOCKS.map(|name| cargo.join(name)).iter().filter(|lock| lock.is_file()) {
        rules.add(lock, GrantKind::File, Links::Followed);
    }
}

fn folder(named: Option<OsString>, default: &Path) -> PathBuf {
    named.map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_caches_and_needed_ones_are_granted() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for folder in [".cargo/registry", ".cargo/bin", ".cache/pip", "bin", "moved"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in [".cargo/.package-cache", "bin/npm"] {
            std::fs::write(at(file), "").unwrap();
        }
        let variable = |name: &str| match name {
            "PATH" => Some(at("bin").into_os_string()),
            "PIP_CACHE_DIR" => Some(at("moved").into_os_string()),
            "UV_CACHE_DIR" => Some(home.path().as_os_str().to_owned()),
            _ => None,
        };
        let mut rules = WriteRules::default();
        grant(&mut rules, home.path(), variable);
        let granted: Vec<&Path> =
            rules.grants().iter().map(|grant| grant.path.strip_prefix(home.path()).unwrap()).collect();
        let expected = [".npm/_cacache", ".npm/_logs", ".cargo/registry", "moved", ".cargo/.package-cache"];
        assert_eq!(granted, expected.map(Path::new), "neither programs nor the home folder");
    }
}
