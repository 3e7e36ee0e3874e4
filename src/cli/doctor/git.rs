//! Git, the repository here, and what workers need of both.

use std::path::{Path, PathBuf};

use super::Place;
use super::check::Check;
use crate::cli::hint;
use crate::cli::shell::{quoted, word};
use crate::config::Settings;
use crate::files;
use crate::git::{self, Configuration, Git, Identity, Repository};
use crate::orchestrator::{Around, check_folder, worktrees_folder};

pub fn look(place: &Place) -> Vec<Check> {
    let mut checks = vec![version(&place.directory)];
    if checks[0].stops_all {
        return checks;
    }
    match &place.repository {
        Err(why) => {
            let check = Check::bad("repository", why.clone()).stops_all();
            // Git does not trust a repository that another user owns.
            checks.push(match why.contains("dubious ownership") {
                true => check.fix(format!("git config --global --add safe.directory {}", quoted(&place.directory))),
                false => check,
            });
        }
        Ok(None) => checks.push(
            with_identity(
                &place.directory,
                Check::warn(
                    "repository",
                    format!(
                        "{} is in none: workers can only work in directories that missions name, one after another",
                        place.directory.display()
                    ),
                ),
            )
            .fix("git init && git add --all && git commit --allow-empty -m 'First commit'"),
        ),
        Ok(Some(repository)) => {
            checks.extend([
                worktrees(repository, &place.settings.branch_prefix),
                folder(repository, place),
                prefix(repository, &place.settings.branch_prefix),
                branch(repository, &place.settings, &place.directory),
                identity(repository, &place.settings),
            ]);
            checks.extend(configuration(repository, &place.state_root));
            if checks.iter().all(|check| !check.stops_all) {
                checks.extend(super::trial::look(repository, place));
            }
        }
    }
    checks
}

fn version(directory: &Path) -> Check {
    let told = Git::read(directory).arg("--version").text();
    match (git::command::require_supported_version(), told) {
        (Ok(()), Ok(version)) => Check::ok("git", version.trim_start_matches("git version ").to_owned()),
        (Err(error), _) | (_, Err(error)) => Check::bad("git", hint::of(&error)).fix(install()).stops_all(),
    }
}

fn install() -> &'static str {
    match cfg!(target_os = "macos") {
        true => "brew install git",
        false => "sudo apt-get install git",
    }
}

fn worktrees(repository: &Repository, prefix: &str) -> Check {
    const NAME: &str = "worktrees";
    let root = repository.root();
    match git::head(root) {
        Ok(None) => {
            return Check::bad(NAME, format!("{} has no commit yet, and a worktree begins at one", root.display()))
                .fix(format!("git -C {} commit --allow-empty -m 'First commit'", quoted(root)))
                .stops_all();
        }
        Err(error) => return Check::bad(NAME, hint::of(&error)).stops_all(),
        Ok(Some(_)) => {}
    }
    if let Some(folder) = git_folders(repository, prefix).iter().find(|folder| !super::machine::is_writable(folder)) {
        let folder = quoted(super::machine::nearest(folder));
        return Check::bad(NAME, format!("{folder} cannot be written, so no worktree can be made"))
            .fix(format!("sudo chown -R \"$(id -un)\" {folder}"))
            .stops_all();
    }
    match git::list(repository) {
        Ok(list) => Check::ok(NAME, format!("{}, {} beside it", root.display(), list.len().saturating_sub(1))),
        Err(error) => Check::bad(NAME, hint::of(&error)).stops_all(),
    }
}

/// Returns the folders that git writes to for a new worktree with a branch.
fn git_folders(repository: &Repository, prefix: &str) -> Vec<PathBuf> {
    let common = &repository.common_dir;
    let tables = common.join("reftable");
    let branch = format!("{prefix}w-0");
    let folder = |heads: &&str| common.join(heads).join(&branch).ancestors().find(|it| it.is_dir()).map(Path::to_owned);
    let branches = match tables.is_dir() {
        true => vec![tables],
        false => ["refs/heads", "logs/refs/heads"].iter().filter_map(folder).collect(),
    };
    [vec![common.clone(), common.join("objects"), common.join("worktrees")], branches].concat()
}

/// Checks the folder for new worktrees, as the creation of a mission does, and the room in it.
fn folder(repository: &Repository, place: &Place) -> Check {
    const NAME: &str = "worktrees folder";
    let template = place.settings.worktrees_dir.as_deref();
    let folder = worktrees_folder(Around { repository, state_root: &place.state_root, template });
    match check_folder(&folder) {
        Ok(()) => super::machine::disk(NAME, &folder, &place.settings),
        Err(error) => {
            Check::bad(NAME, format!("cannot create {}: {error}; worktrees_dir names another", folder.display()))
                .stops_all()
        }
    }
}

/// Checks that branches with generated names can be created. Without one, missions that name no branch are refused.
fn prefix(repository: &Repository, prefix: &str) -> Check {
    const NAME: &str = "branch prefix";
    match git::check_prefix(repository, prefix) {
        Ok(()) => Check::ok(NAME, format!("{prefix:?}, so branches can be named {prefix}w-1")),
        Err(error) => Check::bad(
            NAME,
            format!("no branch can begin with {prefix:?}: {}; branch_prefix sets another", hint::of(&error)),
        )
        .stops_all(),
    }
}

/// Checks the branch from which a boss started here would start its workers. Without such a branch missions are
/// refused.
fn branch(repository: &Repository, settings: &Settings, directory: &Path) -> Check {
    const NAME: &str = "integration branch";
    let tree = git::working_tree(directory).unwrap_or_else(|| repository.root().to_owned());
    let found = match &settings.integration_branch {
        Some(set) => Ok(Some(git::names::branch_name(set).to_owned())),
        None => git::checked_out(&tree),
    };
    let (branch, whose) = match found {
        Ok(Some(branch)) => (
            branch,
            if settings.integration_branch.is_some() { "as the settings say" } else { "which is checked out here" },
        ),
        Ok(None) => {
            return Check::bad(NAME, "HEAD is detached here: missions that name no base are refused")
                .fix(format!("git -C {} switch main", quoted(&tree)))
                .stops_all();
        }
        Err(error) => return Check::warn(NAME, hint::of(&error)),
    };
    match git::names::tip(repository, &branch) {
        Ok(Some(_)) => Check::ok(NAME, format!("{branch}, {whose}")),
        // Before the first commit no branch exists; that has a finding of its own.
        Ok(None) if settings.integration_branch.is_none() => Check::ok(NAME, format!("{branch}, {whose}")),
        Ok(None) => Check::bad(NAME, format!("the settings say {branch}, and there is no such branch here"))
            .fix(format!("git -C {} branch {}", quoted(repository.root()), word(&branch)))
            .stops_all(),
        Err(error) => Check::bad(NAME, hint::of(&error)).stops_all(),
    }
}

/// Checks git's own identity. Without one missions are refused, even if the settings name an author for our commits.
fn identity(repository: &Repository, settings: &Settings) -> Check {
    const NAME: &str = "identity";
    let Identity { name, email } = match repository.identity() {
        Ok(identity) => identity,
        Err(_) => {
            return to_name_yourself(Check::bad(NAME, "git has none, and workers commit: missions are refused"))
                .stops_all();
        }
    };
    match (&settings.commit_name, &settings.commit_email) {
        (Some(own), Some(address)) => Check::ok(
            NAME,
            format!("{name} <{email}>; what workers leave is committed as {own} <{address}>, as the settings say"),
        ),
        _ => Check::ok(NAME, format!("{name} <{email}>")),
    }
}

/// Adds the commands without which the first commit fails, if git has no identity.
fn with_identity(directory: &Path, check: Check) -> Check {
    match git::has_identity(directory) {
        true => check,
        false => to_name_yourself(check),
    }
}

fn to_name_yourself(check: Check) -> Check {
    check.fix("git config --global user.name 'Your Name'").fix("git config --global user.email you@example.com")
}

/// Compares git's configuration with that before the first worker. Integration stops while they differ.
fn configuration(repository: &Repository, state_root: &Path) -> Option<Check> {
    const NAME: &str = "configuration";
    let kept = state_root.join("git-configuration.json");
    let before: Configuration = files::read_json(&kept).ok().flatten()?;
    let now = Configuration::of(repository).ok()?;
    let changes = before.changes(&now);
    let named: Vec<String> = changes.iter().take(4).map(|it| it.replace(char::is_control, "?")).collect();
    Some(match changes.is_empty() {
        true => Check::ok(NAME, "as it was before the first worker"),
        false => Check::warn(
            NAME,
            format!("it is not what it was before the first worker ({}), so nothing is integrated; look, and accept it by deleting the file", named.join(", ")),
        )
        .fix(format!("git -C {} config --show-origin --list", quoted(repository.root())))
        .fix(format!("rm {}", quoted(&kept))),
    })
}
