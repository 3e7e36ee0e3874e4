//! Checks git and the repository, as far as workers need them.

use std::path::{Path, PathBuf};

use super::CheckContext;
use super::check::Finding;
use crate::cli::hint;
use crate::cli::shell::{quoted, word};
use crate::config::Settings;
use crate::files;
use crate::git::{self, Checkout, CommitIdentity, Configuration, Git, Repository, SetupSuggestion, Trust};
use crate::orchestrator::{Around, check_folder, suggested_setup, worktrees_folder};

pub fn check_all(context: &CheckContext) -> Vec<Finding> {
    let mut checks = vec![version(&context.directory)];
    if checks[0].stops_all {
        return checks;
    }
    match &context.repository {
        Err(error) => {
            let why = hint::of(error);
            let is_foreign = why.contains("dubious ownership");
            let check = Finding::bad("repository", why).stops_all();
            // Git does not trust a repository that another user owns.
            checks.push(if is_foreign {
                check.fix(format!("git config --global --add safe.directory {}", quoted(&context.directory)))
            } else {
                check
            });
        }
        Ok(None) => checks.push(
            with_identity(
                &context.directory,
                Finding::warn(
                    "repository",
                    format!(
                        "{} is not in a repository: workers can only work in directories that missions name, one at a time",
                        context.directory.display()
                    ),
                ),
            )
            .fix("git init && git add --all && git commit --allow-empty -m 'First commit'"),
        ),
        Ok(Some(repository)) => {
            checks.extend([
                worktrees(repository, &context.settings.branch_prefix),
                folder(repository, context),
                prefix(repository, &context.settings.branch_prefix),
                branch(repository, &context.settings, &context.directory),
                identity(repository, &context.settings),
            ]);
            checks.extend(configuration(repository, &context.state_root));
            checks.extend(setup(repository, &context.settings));
            if checks.iter().all(|check| !check.stops_all) {
                checks.extend(super::checkout::check(repository, context));
            }
        }
    }
    checks
}

/// Checks the version of git.
pub fn version(directory: &Path) -> Finding {
    let version = Git::without_trust(directory).arg("--version").text();
    match (git::command::require_supported_version(), version) {
        (Ok(()), Ok(version)) => Finding::ok("git", version.trim_start_matches("git version ").to_owned()),
        (Err(error), _) | (_, Err(error)) => Finding::bad("git", hint::of(&error)).fix(install()).stops_all(),
    }
}

fn install() -> &'static str {
    if cfg!(target_os = "macos") { "brew install git" } else { "sudo apt-get install git" }
}

fn worktrees(repository: &Repository, prefix: &str) -> Finding {
    const NAME: &str = "worktrees";
    let root = repository.root();
    match git::head(&repository.checkout()) {
        Ok(None) => {
            return Finding::bad(NAME, format!("{} has no commit yet, and a worktree needs one", root.display()))
                .fix(format!("git -C {} commit --allow-empty -m 'First commit'", quoted(root)))
                .stops_all();
        }
        Err(error) => return Finding::bad(NAME, hint::of(&error)).stops_all(),
        Ok(Some(_)) => {}
    }
    if let Some(folder) = git_folders(repository, prefix).iter().find(|folder| !super::machine::is_writable(folder)) {
        let folder = quoted(super::machine::nearest(folder));
        return Finding::bad(NAME, format!("cannot create worktrees: {folder} is not writable"))
            .fix(format!("sudo chown -R \"$(id -un)\" {folder}"))
            .stops_all();
    }
    match git::list(repository) {
        Ok(list) => Finding::ok(NAME, format!("{}, and {} more", root.display(), list.len().saturating_sub(1))),
        Err(error) => Finding::bad(NAME, hint::of(&error)).stops_all(),
    }
}

/// Returns the folders that git writes to for a new worktree with a branch.
fn git_folders(repository: &Repository, prefix: &str) -> Vec<PathBuf> {
    let common = &repository.common_dir;
    let tables = common.join("reftable");
    let branch = format!("{prefix}w-0");
    let folder = |heads: &&str| common.join(heads).join(&branch).ancestors().find(|it| it.is_dir()).map(Path::to_owned);
    let branches = if tables.is_dir() {
        vec![tables]
    } else {
        ["refs/heads", "logs/refs/heads"].iter().filter_map(folder).collect()
    };
    [vec![common.clone(), common.join("objects"), common.join("worktrees")], branches].concat()
}

/// Checks the folder for new worktrees, as the creation of a mission does, and the room in it.
fn folder(repository: &Repository, context: &CheckContext) -> Finding {
    const NAME: &str = "worktrees folder";
    let template = context.settings.worktrees_dir.as_deref();
    let folder = worktrees_folder(Around { repository, state_root: &context.state_root, template });
    match check_folder(&folder) {
        Ok(()) => super::machine::disk(NAME, &folder, &context.settings),
        Err(error) => {
            Finding::bad(NAME, format!("cannot create {}: {error}; worktrees_dir sets another", folder.display()))
                .stops_all()
        }
    }
}

/// Notes that new worktrees lack what the main checkout has installed, with the setting that changes it.
fn setup(repository: &Repository, settings: &Settings) -> Option<Finding> {
    let SetupSuggestion { command, creates } = suggested_setup(repository, settings)?;
    let text = |text: &str| toml_edit::Value::from(text).to_string();
    let root = text(&repository.root().to_string_lossy());
    let (creates, command) = (creates.join(", "), text(&command));
    Some(Finding::note(
        "setup",
        format!(
            "new worktrees lack {creates}, which the main checkout has; in the settings file, this creates it:\n\
             [repositories.{root}]\nsetup_command = {command}"
        ),
    ))
}

/// Checks that branches with generated names can be created. Without one, missions that name no branch are refused.
fn prefix(repository: &Repository, prefix: &str) -> Finding {
    const NAME: &str = "branch prefix";
    match git::check_prefix(repository, prefix) {
        Ok(()) => Finding::ok(NAME, format!("{prefix:?}, so branches can be named {prefix}w-1")),
        Err(error) => Finding::bad(
            NAME,
            format!("no branch can begin with {prefix:?}: {}; branch_prefix sets another", hint::of(&error)),
        )
        .stops_all(),
    }
}

/// Checks the branch from which a boss started here would start its workers. Without such a branch missions are
/// refused.
fn branch(repository: &Repository, settings: &Settings, directory: &Path) -> Finding {
    const NAME: &str = "integration branch";
    let tree = git::working_tree(directory).unwrap_or_else(|| repository.root().to_owned());
    let found = match &settings.integration_branch {
        Some(set) => Ok(Some(git::names::branch_name(set).to_owned())),
        None => git::checked_out(&repository.at(&tree)),
    };
    let (branch, whose) = match found {
        Ok(Some(branch)) => {
            (branch, if settings.integration_branch.is_some() { "from the settings" } else { "checked out here" })
        }
        Ok(None) => {
            return Finding::bad(NAME, "HEAD is detached here: missions without a base are refused")
                .fix(format!("git -C {} switch main", quoted(&tree)))
                .stops_all();
        }
        Err(error) => return Finding::warn(NAME, hint::of(&error)),
    };
    match git::names::tip(repository, &branch) {
        Ok(Some(_)) => Finding::ok(NAME, format!("{branch}, {whose}")),
        // Before the first commit no branch exists; that has a finding of its own.
        Ok(None) if settings.integration_branch.is_none() => Finding::ok(NAME, format!("{branch}, {whose}")),
        Ok(None) => Finding::bad(NAME, format!("the settings name {branch}, which does not exist here"))
            .fix(format!("git -C {} branch {}", quoted(repository.root()), word(&branch)))
            .stops_all(),
        Err(error) => Finding::bad(NAME, hint::of(&error)).stops_all(),
    }
}

/// Checks git's own identity. Without one missions are refused, even if the settings name an author for our commits.
fn identity(repository: &Repository, settings: &Settings) -> Finding {
    const NAME: &str = "identity";
    let CommitIdentity { name, email } = match repository.identity() {
        Ok(identity) => identity,
        Err(_) => {
            return with_identity_commands(Finding::bad(
                NAME,
                "git has none, which commits need: missions are refused",
            ))
            .stops_all();
        }
    };
    match (&settings.commit_name, &settings.commit_email) {
        (Some(own), Some(address)) => Finding::ok(
            NAME,
            format!("{name} <{email}>; uncommitted changes are committed as {own} <{address}>, from the settings"),
        ),
        _ => Finding::ok(NAME, format!("{name} <{email}>")),
    }
}

/// Adds the commands without which the first commit fails, if git has no identity.
fn with_identity(directory: &Path, check: Finding) -> Finding {
    if git::has_identity(&Checkout::new(directory, &Trust::everything())) {
        check
    } else {
        with_identity_commands(check)
    }
}

fn with_identity_commands(check: Finding) -> Finding {
    check.fix("git config --global user.name 'Your Name'").fix("git config --global user.email you@example.com")
}

/// Compares git's configuration with that before the first worker. Integration stops while they differ.
fn configuration(repository: &Repository, state_root: &Path) -> Option<Finding> {
    const NAME: &str = "configuration";
    let kept = state_root.join("git-configuration.json");
    let before: Configuration = files::read_json(&kept).ok().flatten()?;
    let now = Configuration::of(repository).ok()?;
    let changes = before.changes(&now);
    let named: Vec<String> = changes.iter().take(4).map(|it| it.replace(char::is_control, "?")).collect();
    if changes.is_empty() {
        return Some(Finding::ok(NAME, "unchanged since the first worker"));
    }
    let message = format!(
        "changed since the first worker ({}), so integration stops; check it, and delete the file to accept it",
        named.join(", ")
    );
    let check = Finding::warn(NAME, message);
    Some(
        check
            .fix(format!("git -C {} config --show-origin --list", quoted(repository.root())))
            .fix(format!("rm {}", quoted(&kept))),
    )
}
