//! Pushes a branch to its upstream: never by force, without a prompt on any terminal, and with a time limit. A
//! rejection by the remote is a result, not an error.

use std::env;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::{CommandError, Output};
use super::repository::Repository;
use crate::mission::hint::with_hints;

/// Time limit of a push, long enough for a large push over a slow line. A longer one probably waits for input.
const LIMIT: Duration = Duration::from_secs(180);
/// Maximum length of the remote's answer, in bytes.
const MOST_SAID: usize = 1_500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    pub result: PushResult,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Name of the branch at the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The remote's own answer, or the command that sets an upstream.
    pub said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushResult {
    Pushed,
    UpToDate,
    WouldPush,
    NoUpstream,
    /// The remote has commits that are not here.
    Rejected,
    /// A hook or a rule of the remote refused the push.
    Declined,
    NotAuthorised,
    TimedOut,
    Failed,
}

impl PushResult {
    pub fn as_str(self) -> &'static str {
        match self {
            PushResult::Pushed => "pushed",
            PushResult::UpToDate => "up_to_date",
            PushResult::WouldPush => "would_push",
            PushResult::NoUpstream => "no_upstream",
            PushResult::Rejected => "rejected",
            PushResult::Declined => "declined",
            PushResult::NotAuthorised => "not_authorised",
            PushResult::TimedOut => "timed_out",
            PushResult::Failed => "failed",
        }
    }
}

/// Pushes the branch. With `dry_run` it only determines the upstream and contacts no remote.
pub fn push(repo: &Repository, branch: &str, dry_run: bool) -> Result<Pushed, CommandError> {
    push_within(repo, branch, dry_run, LIMIT)
}

fn push_within(repo: &Repository, branch: &str, dry_run: bool, limit: Duration) -> Result<Pushed, CommandError> {
    let (remote, there) = match upstream(repo, branch)? {
        Upstream::At { remote, there } => (remote, there),
        Upstream::Missing { advice } => {
            return Ok(Pushed { result: PushResult::NoUpstream, remote: None, branch: None, said: advice });
        }
    };
    let (result, said) = if dry_run {
        (PushResult::WouldPush, String::new())
    } else {
        let sent = repo
            .write()
            .limit(limit)
            .env("GIT_SSH_COMMAND", ssh_without_prompts(repo)?)
            .args(["push", "--porcelain", "--no-progress", "--", &remote])
            .arg(format!("refs/heads/{branch}:{there}"))
            .output();
        match sent {
            Ok(output) => (result_of(&output), said(&output)),
            Err(error @ CommandError::TimeUp { .. }) => (PushResult::TimedOut, with_hints(&error)),
            Err(error) => return Err(error),
        }
    };
    let there = there.strip_prefix("refs/heads/").unwrap_or(&there).to_owned();
    Ok(Pushed { result, remote: Some(remote), branch: Some(there), said })
}

/// The upstream of a branch: the configured remote and the ref there, or the command that sets one.
enum Upstream {
    At { remote: String, there: String },
    Missing { advice: String },
}

fn upstream(repo: &Repository, branch: &str) -> Result<Upstream, CommandError> {
    let format = "--format=%(upstream:remotename)%00%(upstream:remoteref)";
    let found = repo.read().args(["for-each-ref", format, &format!("refs/heads/{branch}")]).text()?;
    let (remote, there) = found.lines().next().and_then(|line| line.split_once('\0')).unwrap_or_default();
    let remotes = repo.read().args(["remote"]).text()?;
    // A worker can set a branch's upstream to any URL. A new remote would be reported as a change of configuration.
    if remotes.lines().any(|known| known == remote) && there.starts_with("refs/heads/") {
        return Ok(Upstream::At { remote: remote.to_owned(), there: there.to_owned() });
    }
    let advice = match remotes.lines().next() {
        None => {
            "there is no remote: `git remote add origin <url>`, then `git push -u origin <branch>` sets the upstream"
                .into()
        }
        Some(first) => format!("{branch} has no upstream at a remote: `git push -u {first} {branch}` sets it"),
    };
    Ok(Upstream::Missing { advice })
}

/// Returns the user's own ssh command, with an option that disables prompts.
fn ssh_without_prompts(repo: &Repository) -> Result<String, CommandError> {
    let set = repo.read().args(["config", "--get", "core.sshCommand"]).output()?;
    let set = String::from_utf8_lossy(&set.stdout).trim_end().to_owned();
    let own = env::var("GIT_SSH_COMMAND").ok().or(Some(set).filter(|set| !set.is_empty()));
    let own = own.or_else(|| env::var("GIT_SSH").ok().map(|program| format!("'{}'", program.replace('\'', "'\\''"))));
    Ok(format!("{} -o BatchMode=yes", own.unwrap_or_else(|| "ssh".to_owned())))
}

/// Derives the result from the flags of `--porcelain`, and without any from the error text.
fn result_of(output: &Output) -> PushResult {
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    let has = |flag: &str| status.lines().any(|line| line.starts_with(flag));
    if output.code == Some(0) {
        return if has("=") { PushResult::UpToDate } else { PushResult::Pushed };
    }
    if has("!") {
        let declined = status.contains("[remote rejected]") || status.contains("[remote failure]");
        return if declined { PushResult::Declined } else { PushResult::Rejected };
    }
    const REFUSED: [&str; 6] = [
        "Permission denied",
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "terminal prompts disabled",
        "Host key verification failed",
    ];
    let is_refused = REFUSED.iter().any(|words| output.stderr.contains(words));
    if is_refused { PushResult::NotAuthorised } else { PushResult::Failed }
}

fn said(output: &Output) -> String {
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    let refusals = status.lines().filter_map(|line| line.strip_prefix('!')).map(|line| line.trim().replace('\t', " "));
    let said = refusals.chain([output.stderr.trim().to_owned()]).collect::<Vec<_>>().join("\n");
    said[..said.floor_char_boundary(MOST_SAID)].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, commit, git, identify};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// Creates a repository whose `main` has its upstream in a bare repository beside it.
    fn with_remote() -> (Fixture, PathBuf) {
        let fixture = Fixture::new();
        let bare = fixture.beside("remote.git");
        fixture.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        fixture.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
        fixture.git(&["push", "-q", "-u", "origin", "main"]);
        (fixture, bare)
    }

    fn hook(bare: &std::path::Path, text: &str) {
        let hook = bare.join("hooks/pre-receive");
        std::fs::create_dir_all(bare.join("hooks")).unwrap();
        std::fs::write(&hook, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn only_a_real_push_moves_the_remote_branch() {
        let (fixture, bare) = with_remote();
        let old = git(&bare, &["rev-parse", "main"]);
        let new = fixture.commit("more.txt", "x\n");
        assert_eq!(push(&fixture.repo, "main", true).unwrap().result, PushResult::WouldPush);
        assert_eq!(git(&bare, &["rev-parse", "main"]), old);
        let pushed = push(&fixture.repo, "main", false).unwrap();
        assert_eq!(
            (pushed.result, pushed.remote.as_deref(), pushed.branch.as_deref()),
            (PushResult::Pushed, Some("origin"), Some("main"))
        );
        assert_eq!(git(&bare, &["rev-parse", "main"]), new);
        assert_eq!(push(&fixture.repo, "main", false).unwrap().result, PushResult::UpToDate);
    }

    #[test]
    fn newer_commits_of_a_remote_are_never_overwritten() {
        let (fixture, bare) = with_remote();
        let other = fixture.beside("other");
        git(fixture.root(), &["clone", "-q", bare.to_str().unwrap(), other.to_str().unwrap()]);
        identify(&other);
        let theirs = commit(&other, "theirs.txt", "x\n");
        git(&other, &["push", "-q"]);
        fixture.commit("ours.txt", "x\n");
        let pushed = push(&fixture.repo, "main", false).unwrap();
        assert_eq!(pushed.result, PushResult::Rejected, "{pushed:?}");
        assert!(pushed.said.contains("fetch first"), "{pushed:?}");
        assert_eq!(git(&bare, &["rev-parse", "main"]), theirs);
    }

    #[test]
    fn output_of_a_remote_hook_is_reported() {
        let (fixture, bare) = with_remote();
        hook(&bare, "echo 'not on a Friday' >&2; exit 1");
        fixture.commit("more.txt", "x\n");
        let pushed = push(&fixture.repo, "main", false).unwrap();
        assert_eq!(pushed.result, PushResult::Declined);
        assert!(pushed.said.contains("not on a Friday"), "{pushed:?}");
    }

    #[test]
    fn hanging_remote_times_out() {
        let (fixture, bare) = with_remote();
        let gate = fixture.beside("gate");
        git(&bare, &["init", "-q", "--bare"]);
        assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
        hook(&bare, &format!("cat '{}' >/dev/null", gate.display()));
        fixture.commit("more.txt", "x\n");
        let pushed = push_within(&fixture.repo, "main", false, Duration::from_secs(2)).unwrap();
        assert_eq!(pushed.result, PushResult::TimedOut);
        // Lets the hook exit, which still waits at the gate.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&gate));
    }

    #[test]
    fn missing_upstream_yields_the_command_for_it() {
        let fixture = Fixture::new();
        let said = |fixture: &Fixture| {
            let pushed = push(&fixture.repo, "main", false).unwrap();
            assert_eq!(pushed.result, PushResult::NoUpstream);
            pushed.said
        };
        assert!(said(&fixture).contains("git remote add"));
        fixture.git(&["remote", "add", "home", "/nowhere"]);
        assert!(said(&fixture).contains("git push -u home main"));
        // Nothing is pushed to a place that is no configured remote.
        for anywhere in ["/tmp/anywhere", ".", "ext::sh -c exit"] {
            fixture.git(&["config", "branch.main.remote", anywhere]);
            fixture.git(&["config", "branch.main.merge", "refs/heads/main"]);
            assert!(said(&fixture).contains("git push -u home main"));
        }
        fixture.git(&["config", "branch.main.remote", "home"]);
        let pushed = push(&fixture.repo, "main", false).unwrap();
        assert_eq!(pushed.result, PushResult::Failed);
        assert!(pushed.said.contains("/nowhere"), "{pushed:?}");
    }
}
