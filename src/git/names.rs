//! Resolution of names that a boss or a user gave. A branch name means `refs/heads/NAME`, or else the branch of that
//! name on a remote, and never a tag. For a commit, tags and commit ids are accepted as well. A name that could mean
//! two different commits is an error that lists them.

use std::collections::BTreeSet;
use std::path::Path;

use super::checkout::{branch_commit, ref_commit, resolve_commit};
use super::command::Git;
use super::layout::zero_id;
use super::refs;
use super::repository::{Repository, RepositoryError};
use super::trust::Checkout;
use crate::mission::words;

/// Maximum number of branches that an error names.
const MOST_NAMED: usize = 20;

/// A branch of a remote, as it was last fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBranch {
    pub remote: String,
    /// Full ref name, usually `refs/remotes/origin/NAME`.
    pub full_name: String,
    pub commit: String,
}

/// Returns the name of a branch without a leading `refs/heads/`.
pub fn branch_name(given: &str) -> &str {
    given.strip_prefix("refs/heads/").unwrap_or(given)
}

/// Returns the branch of that name on a remote. If several remotes have it, `checkout.defaultRemote` decides.
pub fn remote_branch(repo: &Repository, branch: &str) -> Result<Option<RemoteBranch>, RepositoryError> {
    let mut found = remote_branches(repo, branch)?;
    if found.len() > 1 {
        let preferred = repo.read().args(["config", "--get", "checkout.defaultRemote"]).answer()?;
        let preferred = preferred.map(|name| String::from_utf8_lossy(&name).trim().to_owned());
        match found.iter().position(|it| Some(&it.remote) == preferred.as_ref()) {
            Some(at) => return Ok(Some(found.swap_remove(at))),
            None => {
                let remotes = found.into_iter().map(|it| it.remote).collect();
                return Err(RepositoryError::SeveralRemotes { branch: branch.to_owned(), remotes });
            }
        }
    }
    Ok(found.pop())
}

fn remote_branches(repo: &Repository, branch: &str) -> Result<Vec<RemoteBranch>, RepositoryError> {
    let places = match refs::remote_places(repo.root(), branch) {
        Some(places) => places,
        None => ask_remote_places(repo, branch)?,
    };
    let mut found = Vec::new();
    for (remote, full_name) in places {
        if let Some(commit) = ref_commit(&repo.checkout(), &full_name)? {
            found.push(RemoteBranch { remote, full_name, commit });
        }
    }
    Ok(found)
}

/// Asks the git program for each remote and the ref in which a fetch stores its branch of this name.
fn ask_remote_places(repo: &Repository, branch: &str) -> Result<Vec<(String, String)>, RepositoryError> {
    let set = repo.read().args(["config", "-z", "--get-regexp", r"^remote\..*\.fetch$"]).answer()?.unwrap_or_default();
    let branch = format!("refs/heads/{branch}");
    let place = |setting: &str| {
        let (key, refspec) = setting.split_once('\n')?;
        let remote = key.strip_prefix("remote.")?.strip_suffix(".fetch")?;
        let (from, to) = refspec.trim_start_matches('+').split_once(':')?;
        let to = match from.split_once('*') {
            Some((start, end)) => to.replacen('*', branch.strip_prefix(start)?.strip_suffix(end)?, 1),
            None => Some(to).filter(|_| from == branch)?.to_owned(),
        };
        Some((remote.to_owned(), to))
    };
    Ok(String::from_utf8_lossy(&set).split('\0').filter_map(place).collect())
}

/// Returns the remote and the branch if `name` is a remote branch, such as `origin/main`.
pub(super) fn as_remote_branch(repo: &Repository, name: &str) -> Result<Option<(String, String)>, RepositoryError> {
    let full_name = format!("refs/remotes/{name}");
    for (at, _) in name.match_indices('/') {
        let found = remote_branches(repo, &name[at + 1..])?;
        if found.iter().any(|it| it.full_name == full_name) {
            return Ok(Some((name[..at].to_owned(), name[at + 1..].to_owned())));
        }
    }
    Ok(None)
}

/// Returns the commit of a local branch, else of the remote branch of that name.
pub fn tip(repo: &Repository, branch: &str) -> Result<Option<String>, RepositoryError> {
    match branch_commit(&repo.checkout(), branch)? {
        Some(commit) => Ok(Some(commit)),
        None => Ok(remote_branch(repo, branch)?.map(|found| found.commit)),
    }
}

/// Creates a branch that only a remote has, at the same commit and with it as its upstream. Returns `false` if nothing
/// had to be done.
pub fn adopt(repo: &Repository, branch: &str) -> Result<bool, RepositoryError> {
    if branch_commit(&repo.checkout(), branch)?.is_some() {
        return Ok(false);
    }
    let Some(found) = remote_branch(repo, branch)? else { return Ok(false) };
    let _lock = repo.lock()?;
    let absent = zero_id(&found.commit);
    let message = format!("branch: created from {}", found.full_name);
    let made = repo
        .write()
        .args(["update-ref", "-m", &message, &format!("refs/heads/{branch}"), &found.commit, &absent])
        .run();
    match made {
        Ok(_) => {}
        // Another process created it in the meantime.
        Err(_) if branch_commit(&repo.checkout(), branch)?.is_some() => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    track(repo, branch, &found.full_name)?;
    Ok(true)
}

/// Sets the upstream of a branch. The caller holds the repository's lock: git fails if its configuration file is
/// locked.
pub(super) fn track(repo: &Repository, branch: &str, upstream: &str) -> Result<(), RepositoryError> {
    repo.write().args(["branch", "--quiet"]).arg(format!("--set-upstream-to={upstream}")).args(["--", branch]).run()?;
    Ok(())
}

/// Returns whether a commit has a folder at this path.
pub fn has_folder(repo: &Repository, commit: &str, folder: &Path) -> bool {
    refs::has_folder(repo.root(), commit, folder).unwrap_or_else(|| {
        let kind = repo.read().args(["cat-file", "-t"]).arg(format!("{commit}:{}", folder.display())).text();
        kind.is_ok_and(|kind| kind == "tree")
    })
}

/// Returns the names of all local branches.
pub fn local_branches(repo: &Repository) -> Result<BTreeSet<String>, RepositoryError> {
    let listed = repo.read().args(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"]).text()?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Returns the names of the local branches for an error message, those with the newest commits first.
pub fn branches(repo: &Repository) -> Result<String, RepositoryError> {
    let newest = ["for-each-ref", "--sort=-committerdate", "--format=%(refname:lstrip=2)", "refs/heads"];
    let listed = repo.read().args(newest).text()?;
    let names: Vec<&str> = listed.lines().collect();
    Ok(if names.is_empty() { "none".to_owned() } else { words::first(&names, MOST_NAMED) })
}

impl Repository {
    /// Builds the error for a missing branch; `why` states where its name comes from.
    pub fn no_such_branch(&self, branch: &str, why: &'static str) -> RepositoryError {
        match branches(self) {
            Ok(branches) => {
                RepositoryError::NoSuchBranch { branch: branch.to_owned(), why, root: self.root().to_owned(), branches }
            }
            Err(error) => error,
        }
    }
}

/// Resolves an untrusted name to a commit. `tree` is the working tree that provides HEAD.
pub fn commit(repo: &Repository, tree: &Checkout, name: &str) -> Result<String, RepositoryError> {
    let unknown = || RepositoryError::UnknownCommit { name: name.to_owned() };
    // Only the stem of a name such as `main~2` is looked up; git then applies the suffix.
    let ends = ["~", "^", ":", "@{"].into_iter().filter_map(|end| name.find(end)).min();
    let at = ends.filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, suffix) = name.split_at(at);
    let meanings = meanings(repo, tree, stem)?;
    let Some((first, commit)) = meanings.first() else {
        return resolve_commit(tree, name)?.ok_or_else(unknown);
    };
    if meanings.iter().any(|(_, other)| other != commit) {
        return Err(RepositoryError::Ambiguous {
            name: stem.to_owned(),
            meanings: meanings.iter().map(|(what, commit)| format!("{what} ({})", &commit[..10])).collect(),
        });
    }
    if suffix.is_empty() {
        return Ok(commit.clone());
    }
    resolve_commit(tree, &format!("{first}{suffix}"))?.ok_or_else(unknown)
}

/// Returns everything that a name can stand for, as full name and commit. The list is empty if no ref matches; git may
/// still resolve the name.
fn meanings(repo: &Repository, tree: &Checkout, name: &str) -> Result<Vec<(String, String)>, RepositoryError> {
    let is_plain =
        !name.is_empty() && !name.starts_with(['-', '/']) && git2::Reference::is_valid_name(&format!("refs/{name}"));
    if !is_plain {
        return Ok(Vec::new());
    }
    let mut full_names = if name.starts_with("refs/") {
        vec![name.to_owned()]
    } else {
        vec![
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            format!("refs/remotes/{name}"),
            format!("refs/remotes/{name}/HEAD"),
            format!("refs/{name}"),
        ]
    };
    if name == "HEAD" {
        full_names.insert(0, "HEAD".to_owned());
    }
    let mut found = Vec::new();
    for full_name in full_names {
        if let Some(commit) = resolve_commit(tree, &full_name)? {
            found.push((full_name, commit));
        }
    }
    let is_branch = found.iter().any(|(full_name, _)| full_name.starts_with("refs/heads/"));
    if !is_branch && !name.starts_with("refs/") && name != "HEAD" {
        found.extend(remote_branch(repo, name)?.map(|it| (it.full_name, it.commit)));
    }
    // Shorter names are never commit ids: git abbreviates to seven digits or more.
    if !found.is_empty() && (7..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        found.extend(objects(tree, name)?.into_iter().map(|commit| (format!("commit {commit}"), commit)));
    }
    Ok(found)
}

/// Returns the commits whose ids begin with this prefix.
fn objects(tree: &Checkout, prefix: &str) -> Result<Vec<String>, RepositoryError> {
    let listed = Git::read(tree).arg("rev-parse").arg(format!("--disambiguate={prefix}")).text()?;
    let commits = listed.lines().map(|id| resolve_commit(tree, id));
    Ok(commits.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
