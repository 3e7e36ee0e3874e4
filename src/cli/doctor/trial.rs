//! Makes a worktree as a run does, in a scratch place. It needs all that a checkout needs: filters, objects that are
//! fetched on demand, room on the disk.
//!
//! The repository is not touched. A scratch repository borrows its objects and has a copy of its configuration. It is a
//! folder among the temporary files, which stays only if this program is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::Place;
use super::check::Check;
use crate::cli::hint;
use crate::cli::shell::quoted;
use crate::files;
use crate::git::{self, CommandError, Configuration, Git, Repository};

const NAME: &str = "checkout";
/// Time limit for a checkout. The result of one that takes longer is unknown.
const LIMIT: Duration = Duration::from_secs(15);

/// Checks that a worktree can be made. The repository must have a commit.
pub fn look(repository: &Repository, place: &Place) -> Vec<Check> {
    let filters = missing_filters(repository);
    if !filters.is_empty() {
        return filters;
    }
    if has_changed_configuration(repository, place) {
        // A checkout would run programs that the configuration names. The change has a finding of its own.
        return vec![Check::warn(NAME, "not tried: git's configuration is not what it was before the first worker")];
    }
    vec![match try_checkout(repository) {
        Ok(()) => Check::ok(NAME, "a worktree was made and removed again, in a scratch place"),
        Err(Failed::Git(CommandError::TimeUp { .. })) => Check::warn(
            NAME,
            format!("a worktree takes longer than {} s to make: whether it ends well is not known", LIMIT.as_secs()),
        ),
        Err(Failed::Git(error)) => Check::bad(NAME, format!("no worktree can be made: {}", hint::of(&error)))
            .fix(format!("git -C {} status", quoted(repository.root())))
            .stops_all(),
        Err(Failed::Scratch(error)) => {
            Check::warn(NAME, format!("not tried: no scratch place could be made ({error}); TMPDIR says where"))
        }
    }]
}

enum Failed {
    Git(CommandError),
    Scratch(io::Error),
}

impl From<CommandError> for Failed {
    fn from(error: CommandError) -> Self {
        Failed::Git(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Scratch(error)
    }
}

fn try_checkout(repository: &Repository) -> Result<(), Failed> {
    let Some(commit) = git::head(repository.root())? else { return Ok(()) };
    let scratch = tempfile::Builder::new().prefix("orchestrator-boss-doctor-").tempdir()?;
    let borrowed = scratch.path().join("repository");
    borrow(repository, &borrowed)?;
    let tree = scratch.path().join("worktree");
    let add = Git::write(&borrowed).args(["worktree", "add", "--quiet", "--detach", "--"]).arg(&tree).arg(commit);
    add.limit(LIMIT).run()?;
    scratch.close()?;
    Ok(())
}

/// Makes a bare repository with the objects and the configuration of this one.
fn borrow(repository: &Repository, at: &Path) -> Result<(), Failed> {
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
    let set = |name: &str, value: &str| Git::write(at).args(["config", "--file", "config", name, value]).run();
    set("core.bare", "true")?;
    // Usually these are not set; the error of git is then expected.
    let _ = Git::write(at).args(["config", "--file", "config", "--unset", "core.worktree"]).run();
    let _ = Git::write(at).args(["config", "--file", "config", "--unset", "extensions.worktreeConfig"]).run();
    if common.join("lfs").is_dir() {
        set("lfs.storage", &common.join("lfs").to_string_lossy())?;
    }
    Ok(())
}

fn has_changed_configuration(repository: &Repository, place: &Place) -> bool {
    let kept = place.state_root.join("git-configuration.json");
    let before: Option<Configuration> = files::read_json(&kept).ok().flatten();
    let now = Configuration::of(repository).ok();
    before.zip(now).is_some_and(|(before, now)| !before.changes(&now).is_empty())
}

/// Returns findings about filters that the committed files use and that are missing.
fn missing_filters(repository: &Repository) -> Vec<Check> {
    let used = used_filters(repository).unwrap_or_default();
    used.iter().filter_map(|filter| missing_filter(repository, filter)).collect()
}

fn missing_filter(repository: &Repository, filter: &str) -> Option<Check> {
    let name = format!("filter {filter}");
    let install = match filter {
        "lfs" => Some("git-lfs"),
        "git-crypt" => Some("git-crypt"),
        _ => None,
    };
    let command = ["process", "smudge"].iter().find_map(|what| setting(repository, &format!("filter.{filter}.{what}")));
    let Some(command) = command else {
        // Git then checks out the stored content: for large files, only pointers.
        let says = format!(
            "files ask for the filter {filter}, and git knows no such filter: workers get what is stored in their place"
        );
        return Some(with_install(Check::warn(&name, says), install));
    };
    let program = program_of(&command)?;
    if which::which(&program).is_ok() {
        return None;
    }
    let is_required = setting(repository, &format!("filter.{filter}.required")).is_some_and(|it| it == "true");
    let says = format!("files ask for the filter {filter}, whose program {program} is not on the PATH");
    Some(with_install(
        match is_required {
            true => Check::bad(&name, format!("{says}: no worktree can be made")).stops_all(),
            false => Check::warn(&name, format!("{says}: workers get what is stored in their place")),
        },
        install,
    ))
}

fn with_install(check: Check, package: Option<&str>) -> Check {
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
    Git::read(repository.root()).args(["config", "--get", name]).text().ok().filter(|value| !value.is_empty())
}

fn used_filters(repository: &Repository) -> Result<BTreeSet<String>, CommandError> {
    let root = repository.root();
    let files = Git::read(root).args(["ls-tree", "-r", "-z", "--name-only", "HEAD"]).run()?;
    let asked = Git::read(root).args(["check-attr", "-z", "--stdin", "filter"]).input(files).run()?;
    // The output is a sequence of path, attribute and value.
    let values = asked.split(|byte| *byte == 0).skip(2).step_by(3);
    let values = values.map(|value| String::from_utf8_lossy(value).into_owned());
    Ok(values.filter(|value| !matches!(value.as_str(), "unspecified" | "set" | "unset" | "")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_filter_is_told_only_where_that_is_plain() {
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
