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

const CACHES: [Cache; 62] = [
    Cache { needed_by: Some("npm"), below: &["_cacache", "_logs", "_npx"], ..cache("npm_config_cache", ".npm") },
    Cache { below: &["_cacache", "_logs", "_npx"], ..cache("NPM_CONFIG_CACHE", ".npm") },
    Cache { needed_by: Some("cargo"), below: &["registry", "git"], ..cache("CARGO_HOME", ".cargo") },
    // Without the variable, builds are in the worktree.
    Cache { needed_by: Some("cargo"), ..cache("CARGO_TARGET_DIR", "") },
    Cache { needed_by: Some("go"), ..cache("GOCACHE", ".cache/go-build") },
    cache("GOMODCACHE", "go/pkg/mod"),
    Cache { needed_by: Some("go"), below: &["pkg/mod", "pkg/sumdb"], ..cache("GOPATH", "go") },
    Cache { needed_by: Some("uv"), ..cache("UV_CACHE_DIR", ".cache/uv") },
    Cache { needed_by: Some("pre-commit"), ..cache("PRE_COMMIT_HOME", ".cache/pre-commit") },
    Cache { needed_by: Some("corepack"), ..cache("COREPACK_HOME", ".cache/node/corepack") },
    cache("PIP_CACHE_DIR", ".cache/pip"),
    cache("POETRY_CACHE_DIR", ".cache/pypoetry"),
    cache("PIPENV_CACHE_DIR", ".cache/pipenv"),
    cache("WORKON_HOME", ".local/share/virtualenvs"),
    cache("VIRTUALENV_OVERRIDE_APP_DATA", ".local/share/virtualenv"),
    cache("", ".cache/virtualenv"),
    cache("", ".cache/hatch"),
    cache("", ".local/share/hatch"),
    cache("", ".cache/black"),
    cache("MPLCONFIGDIR", ".cache/matplotlib"),
    Cache { below: &["hub", "datasets"], ..cache("HF_HOME", ".cache/huggingface") },
    Cache { needed_by: Some("yarn"), ..cache("YARN_CACHE_FOLDER", ".cache/yarn") },
    cache("YARN_CACHE_FOLDER", "Library/Caches/Yarn"),
    Cache { needed_by: Some("yarn"), below: &["cache", "metadata"], ..cache("YARN_GLOBAL_FOLDER", ".yarn/berry") },
    Cache { needed_by: Some("pnpm"), ..cache("", ".local/share/pnpm/store") },
    cache("", "Library/pnpm/store"),
    Cache { needed_by: Some("pnpm"), ..cache("", ".cache/pnpm") },
    cache("BUN_INSTALL_CACHE_DIR", ".bun/install/cache"),
    cache("DENO_DIR", ".cache/deno"),
    cache("", ".cache/node-gyp"),
    cache("", ".cache/typescript"),
    cache("PLAYWRIGHT_BROWSERS_PATH", ".cache/ms-playwright"),
    cache("PUPPETEER_CACHE_DIR", ".cache/puppeteer"),
    cache("CYPRESS_CACHE_FOLDER", ".cache/Cypress"),
    cache("ELECTRON_CACHE", ".cache/electron"),
    cache("CCACHE_DIR", ".cache/ccache"),
    cache("CCACHE_DIR", ".ccache"),
    cache("SCCACHE_DIR", ".cache/sccache"),
    cache("GOLANGCI_LINT_CACHE", ".cache/golangci-lint"),
    cache("", ".cache/gopls"),
    cache("ZIG_GLOBAL_CACHE_DIR", ".cache/zig"),
    cache("", ".cache/bazel"),
    cache("", ".cache/bazelisk"),
    cache("COURSIER_CACHE", ".cache/coursier"),
    Cache {
        needed_by: Some("gradle"),
        below: &["caches", "daemon", "wrapper", "native", "notifications", ".tmp"],
        ..cache("GRADLE_USER_HOME", ".gradle")
    },
    cache("", ".gradle/jdks"),
    Cache { needed_by: Some("mvn"), below: &["repository", "wrapper"], ..cache("", ".m2") },
    Cache { below: &["cache"], ..cache("", ".ivy2") },
    Cache { below: &["cache"], ..cache("ANDROID_USER_HOME", ".android") },
    cache("NUGET_PACKAGES", ".nuget/packages"),
    cache("", ".local/share/NuGet"),
    cache("COMPOSER_CACHE_DIR", ".cache/composer"),
    Cache { below: &["cache"], ..cache("BUNDLE_USER_HOME", ".bundle") },
    cache("PUB_CACHE", ".pub-cache"),
    cache("", ".cache/org.swift.swiftpm"),
    cache("TF_PLUGIN_CACHE_DIR", ".terraform.d/plugin-cache"),
    Cache { needed_by: Some("docker"), ..cache("BUILDX_CONFIG", ".docker/buildx") },
    cache("", ".cache/nix"),
    cache("", ".stack"),
    cache("", ".cabal/packages"),
    Cache { below: &["packages"], ..cache("HEX_HOME", ".hex") },
    cache("", ".conan2/p"),
];

/// Locks of Cargo. Without them it works, but takes no lock.
const CARGO_LOCKS: [&str; 3] = [".package-cache", ".package-cache-mutate", ".global-cache"];

impl Cache {
    fn folders(&self, home: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let top = folder(variable(self.variable), || default_place(home, self.default, &variable));
        if self.below.is_empty() { vec![top] } else { self.below.iter().map(|inner| top.join(inner)).collect() }
    }
}

/// Creates the caches without which an installed tool fails.
pub fn create_needed(home: &Path, variable: impl Fn(&str) -> Option<OsString>) {
    let path = variable("PATH").unwrap_or_default();
    let is_installed = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    for cache in CACHES.iter().filter(|cache| cache.needed_by.is_some()) {
        let missing: Vec<PathBuf> = cache.folders(home, &variable).into_iter().filter(|path| !path.is_dir()).collect();
        if !missing.is_empty() && cache.needed_by.is_some_and(is_installed) {
            // Where one cannot be created, the tool fails as it does for the user.
            missing.iter().for_each(|folder| drop(std::fs::create_dir_all(folder)));
        }
    }
}

/// Adds the caches of this user that exist.
pub fn grant(rules: &mut WriteRules, home: &Path, variable: impl Fn(&str) -> Option<OsString>) {
    for folder in CACHES.iter().flat_map(|cache| cache.folders(home, &variable)) {
        if folder.is_dir() && !home.starts_with(&folder) {
            rules.add(&folder, GrantKind::Folder, Links::Followed);
        }
    }
    let cargo = folder(variable("CARGO_HOME"), || home.join(".cargo"));
    for lock in CARGO_LOCKS.map(|name| cargo.join(name)).iter().filter(|lock| lock.is_file()) {
        rules.add(lock, GrantKind::File, Links::Followed);
    }
}

/// Returns where a tool has its cache if no variable of its own names another folder.
fn default_place(home: &Path, default: &str, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let moved = |name: &str, prefix: &str| {
        let inner = default.strip_prefix(prefix)?;
        Some(PathBuf::from(variable(name)?)).filter(|path| path.is_absolute()).map(|path| path.join(inner))
    };
    let in_library = || default.strip_prefix(".cache/").map(|inner| home.join("Library/Caches").join(inner));
    moved("XDG_CACHE_HOME", ".cache/")
        .or_else(|| moved("XDG_DATA_HOME", ".local/share/"))
        // Some tools have their cache in the library of macOS, and others as on Linux.
        .or_else(|| in_library().filter(|path| cfg!(target_os = "macos") && path.is_dir()))
        .unwrap_or_else(|| home.join(default))
}

fn folder(named: Option<OsString>, default: impl FnOnce() -> PathBuf) -> PathBuf {
    named.map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or_else(default)
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
        create_needed(home.path(), variable);
        grant(&mut rules, home.path(), variable);
        let granted: Vec<&Path> =
            rules.grants().iter().map(|grant| grant.path.strip_prefix(home.path()).unwrap()).collect();
        let expected =
            [".npm/_cacache", ".npm/_logs", ".npm/_npx", ".cargo/registry", "moved", ".cargo/.package-cache"];
        assert_eq!(granted, expected.map(Path::new), "neither programs nor the home folder");
    }
}
