//! Suggests a command that prepares new worktrees. A repository needs one if it has a lock file, and its main checkout
//! has the folder that a package manager fills from it, which git ignores and so does not bring into a worktree.

use std::time::Duration;

use super::command::{CommandError, Git};
use super::repository::Repository;

/// Lock files, each with the folders of which one shows that it is used, and the command that fills them. Of several
/// lock files for one folder, the first counts.
const LOCK_FILES: [(&str, &[&str], &str); 12] = [
    ("pnpm-lock.yaml", &["node_modules"], "pnpm install --frozen-lockfile"),
    ("yarn.lock", &["node_modules"], "yarn install --frozen-lockfile"),
    ("bun.lock", &["node_modules"], "bun install --frozen-lockfile"),
    ("bun.lockb", &["node_modules"], "bun install --frozen-lockfile"),
    ("package-lock.json", &["node_modules"], "npm ci"),
    ("npm-shrinkwrap.json", &["node_modules"], "npm ci"),
    ("uv.lock", &[".venv"], "uv sync --locked"),
    ("poetry.lock", &[".venv"], "poetry install"),
    ("requirements.txt", &[".venv"], "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
    ("requirements.txt", &["venv"], "python3 -m venv venv && venv/bin/pip install -r requirements.txt"),
    ("Gemfile.lock", &["vendor", "vendor/bundle"], "bundle install"),
    ("composer.lock", &["vendor"], "composer install"),
];
/// A template of local settings, the file that is made from it, and the list of files that are copied anyway.
const EXAMPLE: &str = ".env.example";
const LOCAL: &str = ".env";
const INCLUDE_LIST: &str = ".worktreeinclude";
/// Maximum number of parts of a suggestion. A repository with more has a script of its own.
const MOST: usize = 4;

/// A command, and the ignored files and folders that it creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupSuggestion {
    pub command: String,
    pub creates: Vec<String>,
}

/// Returns the command that the repository seems to need. `None` if it needs none, or has no main checkout. Each call
/// of git takes at most `limit`.
pub fn suggested_setup(repository: &Repository, limit: Duration) -> Result<Option<SetupSuggestion>, CommandError> {
    let Some(main) = &repository.main_worktree else { return Ok(None) };
    let checkout = repository.at(main);
    let list = |args: &[&str]| -> Result<Vec<String>, CommandError> {
        let listed = Git::read(&checkout).args(["ls-files", "-z"]).args(args).limit(limit).run()?;
        let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        Ok(paths.filter_map(|path| String::from_utf8(path.to_vec()).ok()).collect())
    };
    let names = LOCK_FILES.iter().map(|(name, ..)| *name).chain([EXAMPLE]);
    let patterns: Vec<String> = names.map(|name| format!(":(glob)**/{name}")).collect();
    let patterns: Vec<&str> = ["--"].into_iter().chain(patterns.iter().map(String::as_str)).collect();
    let mut tracked = list(&patterns)?;
    if tracked.is_empty() {
        return Ok(None);
    }
    if main.join(INCLUDE_LIST).exists() {
        tracked.push(INCLUDE_LIST.to_owned());
    }
    let ignored = list(&["--others", "--ignored", "--exclude-standard", "--directory"])?;
    Ok(suggest(&tracked, &ignored))
}

/// Returns the command for these tracked files and ignored files of the main checkout, by their paths from its root. An
/// ignored folder may end with a slash.
fn suggest(tracked: &[String], ignored: &[String]) -> Option<SetupSuggestion> {
    let is_ignored = |path: &str| ignored.iter().any(|it| it.trim_end_matches('/') == path);
    let has_list = tracked.iter().any(|path| path == INCLUDE_LIST);
    let mut parts: Vec<(String, String)> = Vec::new();
    let mut add = |folder: &str, created: String, command: &str| {
        if is_plain(folder) && parts.iter().all(|(other, _)| *other != created) {
            let command = if folder.is_empty() { command.to_owned() } else { format!("(cd {folder} && {command})") };
            parts.push((created, command));
        }
    };
    let mut folders: Vec<&str> = tracked.iter().map(|path| parent(path)).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let has = |name: &str| tracked.iter().any(|path| *path == within(folder, name));
        for (_, filled, command) in LOCK_FILES.iter().filter(|(name, ..)| has(name)) {
            if let Some(created) = filled.iter().map(|it| within(folder, it)).find(|it| is_ignored(it)) {
                add(folder, created, command);
            }
        }
        if !has_list && has(EXAMPLE) && is_ignored(&within(folder, LOCAL)) {
            add(folder, within(folder, LOCAL), &format!("cp {EXAMPLE} {LOCAL}"));
        }
    }
    if parts.is_empty() || parts.len() > MOST {
        return None;
    }
    let (creates, commands): (Vec<String>, Vec<String>) = parts.into_iter().unzip();
    Some(SetupSuggestion { command: commands.join(" && "), creates })
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn within(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Returns whether a shell needs no quotes for it, and no program takes it for an option.
fn is_plain(folder: &str) -> bool {
    !folder.starts_with('-') && folder.chars().all(|it| it.is_ascii_alphanumeric() || "/._-".contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    fn suggested(tracked: &[&str], ignored: &[&str]) -> Option<String> {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        suggest(&owned(tracked), &owned(ignored)).map(|it| format!("{} -> {}", it.command, it.creates.join(", ")))
    }

    #[test]
    fn lock_file_with_its_folder_suggests_its_command() {
        let cases: [(&[&str], &[&str], Option<&str>); 19] = [
            (&["package-lock.json"], &["node_modules/"], Some("npm ci -> node_modules")),
            (&["npm-shrinkwrap.json"], &["node_modules"], Some("npm ci -> node_modules")),
            (&["pnpm-lock.yaml"], &["node_modules/"], Some("pnpm install --frozen-lockfile -> node_modules")),
            (
                &["yarn.lock", "package-lock.json"],
                &["node_modules/"],
                Some("yarn install --frozen-lockfile -> node_modules"),
            ),
            (&["bun.lock"], &["node_modules/"], Some("bun install --frozen-lockfile -> node_modules")),
            (&["uv.lock", "requirements.txt"], &[".venv/"], Some("uv sync --locked -> .venv")),
            (&["poetry.lock"], &[".venv/"], Some("poetry install -> .venv")),
            (
                &["requirements.txt"],
                &["venv/"],
                Some("python3 -m venv venv && venv/bin/pip install -r requirements.txt -> venv"),
            ),
            (&["Gemfile.lock"], &["vendor/bundle/"], Some("bundle install -> vendor/bundle")),
            (&["composer.lock"], &["vendor/"], Some("composer install -> vendor")),
            (&[".env.example"], &[".env"], Some("cp .env.example .env -> .env")),
            (
                &["package-lock.json", ".env.example"],
                &["node_modules/", ".env"],
                Some("npm ci && cp .env.example .env -> node_modules, .env"),
            ),
            (
                &["web/package-lock.json", "uv.lock"],
                &["web/node_modules/", ".venv/"],
                Some("uv sync --locked && (cd web && npm ci) -> .venv, web/node_modules"),
            ),
            (&[".env.example", ".worktreeinclude"], &[".env"], None),
            (&["package-lock.json"], &[], None),
            (&["package-lock.json"], &["web/node_modules/"], None),
            (&["Cargo.lock"], &["target/"], None),
            (&[], &["node_modules/"], None),
            (
                &["a b/package-lock.json", "$(x)/yarn.lock", "-x/yarn.lock"],
                &["a b/node_modules/", "$(x)/node_modules/", "-x/node_modules/"],
                None,
            ),
        ];
        for (tracked, ignored, expected) in cases {
            assert_eq!(suggested(tracked, ignored).as_deref(), expected, "{tracked:?} {ignored:?}");
        }
        let many = ["a", "b", "c", "d", "e"];
        let locks = many.map(|folder| format!("{folder}/yarn.lock"));
        let folders = many.map(|folder| format!("{folder}/node_modules/"));
        assert_eq!(suggest(&locks, &folders), None, "too many parts");
        assert!(suggest(&locks[..4], &folders).is_some());
    }

    #[test]
    fn repository_is_examined_by_its_main_checkout() {
        let fixture = Fixture::new();
        let found = || suggested_setup(&fixture.repo, Duration::from_secs(60)).unwrap();
        assert_eq!(found(), None);
        fixture.commit(".gitignore", "node_modules\n");
        fixture.commit("web/package-lock.json", "{}\n");
        assert_eq!(found(), None, "nothing is installed");
        fixture.write("web/node_modules/x/index.js", "x\n");
        assert_eq!(found().unwrap().command, "(cd web && npm ci)");
    }
}
