//! Creates a worktree in a scratch folder, as a run does. The checkout needs its filters, objects that are fetched on
//! demand, and free disk space.
//!
//! The repository is not changed. A scratch repository borrows its objects and copies its configuration. It is a
//! temporary folder, which is left behind only if this program is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::CheckContext;
use super::check::Finding;
use super::confined;
use crate::cli::hint;
use crate::cli::shell::quoted;
use crate::files;
use crate::git::{self, CommandError, Configuration, Git, Repository};

const NAME: &str = "checkout";
/// Time limit for a checkout. The result of one that takes longer is unknown.
const LIMIT: Duration = Duration::from_secs(15);

/// Checks that a worktree can be made. The repository must have a commit.
pub fn check(repository: &Repository, context: &CheckContext) -> Vec<Finding> {
    let filters = missing_filters(repository);
    if !filters.is_empty() {
        return filters;
    }
    if has_changed_configuration(repository, context) {
        // A checkout would run programs that the configuration names. The change has a finding of its own.
        return vec![Finding::warn(NAME, "not tried: git's configuration has changed since the first worker")];
    }
    let mut commit = None;
    let checkout = match try_checkout(repository, context, &mut commit) {
        Ok(()) => Finding::ok(NAME, "a scratch worktree was created and removed"),
        Err(CheckoutError::Git(CommandError::TimeUp { .. })) => {
            Finding::warn(NAME, format!("creating a worktree takes longer than {} s, so it may fail", LIMIT.as_secs()))
        }
        Err(CheckoutError::Git(error)) => Finding::bad(NAME, format!("cannot create worktrees: {}", hint::of(&error)))
            .fix(format!("git -C {} status", quoted(repository.root())))
            .stops_all(),
        Err(CheckoutError::Scratch(error)) => {
            Finding::warn(NAME, format!("not tried: cannot create a scratch folder ({error}); TMPDIR sets another"))
        }
    };
    [checkout].into_iter().chain(commit).collect()
}

enum CheckoutError {
    Git(CommandError),
    Scratch(io::Error),
}

impl From<CommandError> for CheckoutError {
    fn from(error: CommandError) -> Self {
        CheckoutError::Git(error)
    }
}

impl From<io::Error> for CheckoutError {
    fn from(error: io::Error) -> Self {
        CheckoutError::Scratch(error)
    }
}

fn try_checkout(
    repository: &Repository,
    context: &CheckContext,
    committed: &mut Option<Finding>,
) -> Result<(), CheckoutError> {
    let Some(commit) = git::head(&repository.checkout())? else { return Ok(()) };
    let scratch = tempfile::Builder::new().prefix("orchestrator-boss-doctor-").tempdir()?;
    let borrowed = scratch.path().join("repository");
    borrow(repository, &borrowed)?;
    let tree = scratch.path().join("worktree");
    let add = Git::write(&repository.at(&borrowed))
        .args(["worktree", "add", "--quiet", "--detach", "--"])
        .arg(&tree)
        .arg(commit);
    add.limit(LIMIT).run()?;
    *committed = confined::commit(&context.settings, scratch.path(), &repository.at(&tree), borrowed);
    scratch.close()?;
    Ok(())
}

/// Makes a bare repository with the objects and the configuration of this one.
fn borrow(repository: &Repository, at: &Path) -> Result<(), CheckoutError> {
    let common = &repository.common_dir;
    for folder in ["objects/info", "refs/heads", "info"] {
        fs::create_dir_all(at.join(folder))?;
    }
    fs::write(at.join("HEAD"), "ref: refs/heads/scratch\n")?;
    fs::write(at.join("objects/info/alternates"), format!("{}\n", common.join("objects").display()))?;
    for name in ["config", "shallow", "info/attributes"] {
        match fs::copy(common.join(name), at.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let set = |name: &str, value: &str| {
        Git::write(&repository.at(at)).args(["config", "--file", "config", name, value]).run()
    };
    set("core.bare", "true")?;
    // Usually these are not set; the error of git is then expected.
    let _ = Git::write(&repository.at(at)).args(["config", "--file", "config", "--unset", "core.worktree"]).run();
    let _ = Git::write(&repository.at(at))
        .args(["config", "--file", "config", "--unset", "extensions.worktreeConfig"])
        .run();
    if common.join("lfs").is_dir() {
        set("lfs.storage", &common.join("lfs").to_string_lossy())?;
    }
    Ok(())
}

fn has_changed_configuration(repository: &Repository, context: &CheckContext) -> bool {
    let kept = context.state_root.join("git-configuration.json");
    let before: Option<Configuration> = files::read_json(&kept).ok().flatten();
    let now = Configuration::of(repository).ok();
    before.zip(now).is_some_and(|(before, now)| !before.changes(&now).is_empty())
}

/// Returns findings about filters that the committed files use and that are missing.
fn missing_filters(repository: &Repository) -> Vec<Finding> {
    let used = used_filters(repository).unwrap_or_default();
    used.iter().filter_map(|filter| missing_filter(repository, filter)).collect()
}

fn missing_filter(repository: &Repository, filter: &str) -> Option<Finding> {
    let name = format!("filter {filter}");
    let install = match filter {
        "lfs" => Some("git-lfs"),
        "git-crypt" => Some("git-crypt"),
        _ => None,
    };
    let command = ["process", "smudge"].iter().find_map(|what| setting(repository, &format!("filter.{filter}.{what}")));
    let Some(command) = command else {
        // Git then checks out the stored content: for large files, only pointers.
        let message =
            format!("files need the filter {filter}, which git does not know: workers get the stored content instead");
        return Some(with_install(Finding::warn(&name, message), install));
    };
    let program = program_of(&command)?;
    if which::which(&program).is_ok() {
        return None;
    }
    let is_required = setting(repository, &format!("filter.{filter}.required")).is_some_and(|it| it == "true");
    let message = format!("files need the filter {filter}, whose program {program} is not on the PATH");
    Some(with_install(
        if is_required {
            Finding::bad(&name, format!("{message}: cannot create worktrees")).stops_all()
        } else {
            Finding::warn(&name, format!("{message}: workers get the stored content instead"))
        },
        install,
    ))
}

fn with_install(check: Finding, package: Option<&str>) -> Finding {
    match package {
        Some(package) if cfg!(target_os = "macos") => check.fix(format!("brew install {package}")),
        Some(package) => check.fix(format!("sudo apt-get install {package}")),
        None => check,
    }
}

/// Returns a command's program, if it is clear without a shell. For `git lfs`, git starts `git-lfs`.
fn program_of(command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    let first = words.next()?;
    if first.contains(['\'', '"', '$', '=', '`', ';', '|', '&', '(']) {
        return None;
    }
    Some(match (first, words.next()) {
        ("git", Some("lfs")) => "git-lfs".to_owned(),
        _ => first.to_owned(),
    })
}

fn setting(repository: &Repository, name: &str) -> Option<String> {
    repository.read().args(["config", "--get", name]).text().ok().filter(|value| !value.is_empty())
}

fn used_filters(repository: &Repository) -> Result<BTreeSet<String>, CommandError> {
    let files = repository.read().args(["ls-tree", "-r", "-z", "--name-only", "HEAD"]).run()?;
    let asked = repository.read().args(["check-attr", "-z", "--stdin", "filter"]).input(files).run()?;
    // The output is a sequence of path, attribute and value.
    let values = asked.split(|byte| *byte == 0).skip(2).step_by(3);
    let values = values.map(|value| String::from_utf8_lossy(value).into_owned());
    Ok(values.filter(|value| !matches!(value.as_str(), "unspecified" | "set" | "unset" | "")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_of_a_plain_filter_is_found() {
        for (command, program) in [
            ("git-lfs smudge -- %f", Some("git-lfs")),
            ("git lfs filter-process", Some("git-lfs")),
            ("\"git-crypt\" smudge", None),
            ("X=1 tool", None),
            ("sed s/a/b/", Some("sed")),
            ("", None),
        ] {
            assert_eq!(program_of(command).as_deref(), program, "{command}");
        }
    }
}
