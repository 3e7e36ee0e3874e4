//! Returns what a name that a boss or a user gave stands for. Where a branch is asked for, it is `refs/heads/NAME`, then the
//! branch of that name at a remote, and never a tag. Where a commit is asked for, tags and commits are as good, and a
//! name that stands for two commits is refused with both.

use std::path::Path;

use super::command::Git;
use super::refs;
use super::repository::{Repository, RepositoryError, branch_commit, resolve_commit};

/// How many branches an error names.
const MOST_NAMED: usize = 20;

/// A branch that a remote has, as it was last fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBranch {
    pub remote: String,
    /// `refs/remotes/origin/NAME`, as a rule.
    pub full_name: String,
    pub commit: String,
}

/// The name of a branch without `refs/heads/`, which a caller may have put before it.
pub fn branch_name(given: &str) -> &str {
    given.strip_prefix("refs/heads/").unwrap_or(given)
}

/// The branch of that name at a remote. Of several remotes `checkout.defaultRemote` names the one that counts.
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
        if let Some(commit) = resolve_commit(repo.root(), &full_name)? {
            found.push(RemoteBranch { remote, full_name, commit });
        }
    }
    Ok(found)
}

/// Each remote, and the ref in which a fetch keeps its branch of this name, by the git program.
fn ask_remote_places(repo: &Repository, branch: &str) -> Result<Vec<(String, String)>, RepositoryError> {
    let remotes = repo.read().args(["remote"]).text()?;
    Ok(remotes.lines().map(|remote| (remote.to_owned(), format!("refs/remotes/{remote}/{branch}"))).collect())
}

/// The remote and the name there, for a name such as `origin/main` that stands for a remote's branch.
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

/// The commit of a branch: the local one's, else the remote's of that name.
pub fn tip(repo: &Repository, branch: &str) -> Result<Option<String>, RepositoryError> {
    match branch_commit(repo.root(), branch)? {
        Some(commit) => Ok(Some(commit)),
        None => Ok(remote_branch(repo, branch)?.map(|found| found.commit)),
    }
}

/// Makes a branch that only a remote has, where it stands there and with it as its upstream. `false`: nothing was to do.
pub fn adopt(repo: &Repository, branch: &str) -> Result<bool, RepositoryError> {
    if branch_commit(repo.root(), branch)?.is_some() {
        return Ok(false);
    }
    let Some(found) = remote_branch(repo, branch)? else { return Ok(false) };
    let _lock = repo.lock()?;
    let absent = "0".repeat(found.commit.len());
    let message = format!("branch: created from {}", found.full_name);
    let made = repo
        .write()
        .args(["update-ref", "-m", &message, &format!("refs/heads/{branch}"), &found.commit, &absent])
        .run();
    match made {
        Ok(_) => {}
        // Another caller was faster.
        Err(_) if branch_commit(repo.root(), branch)?.is_some() => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    track(repo, branch, &found.full_name)?;
    Ok(true)
}

/// Sets the upstream of a branch. The caller holds the repository's lock: git does not wait for that of its settings.
pub(super) fn track(repo: &Repository, branch: &str, upstream: &str) -> Result<(), RepositoryError> {
    repo.write().args(["branch", "--quiet"]).arg(format!("--set-upstream-to={upstream}")).args(["--", branch]).run()?;
    Ok(())
}

/// Whether a commit has a folder of that name.
pub fn has_folder(repo: &Repository, commit: &str, folder: &Path) -> bool {
    refs::has_folder(repo.root(), commit, folder).unwrap_or_else(|| {
        let kind = repo.read().args(["cat-file", "-t"]).arg(format!("{commit}:{}", folder.display())).text();
        kind.is_ok_and(|kind| kind == "tree")
    })
}

/// The names of the branches that there are, for an error: the ones used last come first.
pub fn branches(repo: &Repository) -> Result<String, RepositoryError> {
    let newest = ["for-each-ref", "--sort=-committerdate", "--format=%(refname:lstrip=2)", "refs/heads"];
    let listed = repo.read().args(newest).text()?;
    let names: Vec<&str> = listed.lines().collect();
    let more = names.len().saturating_sub(MOST_NAMED);
    let named = names.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
    Ok(match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => named,
        (false, more) => format!("{named} and {more} more"),
    })
}

/// The commit behind a name that came from outside. `tree` is the working tree whose HEAD is meant.
pub fn commit(repo: &Repository, tree: &Path, name: &str) -> Result<String, RepositoryError> {
    let unknown = || RepositoryError::UnknownCommit { name: name.to_owned() };
    // `main~2` begins at what `main` stands for.
    let ends = ["~", "^", ":", "@{"].into_iter().filter_map(|end| name.find(end)).min();
    let at = ends.filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, way) = name.split_at(at);
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
    match way.is_empty() {
        true => Ok(commit.clone()),
        false => resolve_commit(tree, &format!("{first}{way}"))?.ok_or_else(unknown),
    }
}

/// All that a name can stand for: the full name of each, and its commit. Empty where only git knows, if it does.
fn meanings(repo: &Repository, tree: &Path, name: &str) -> Result<Vec<(String, String)>, RepositoryError> {
    let is_plain =
        !name.is_empty() && !name.starts_with(['-', '/']) && git2::Reference::is_valid_name(&format!("refs/{name}"));
    if !is_plain {
        return Ok(Vec::new());
    }
    let mut full_names = match name.starts_with("refs/") {
        true => vec![name.to_owned()],
        false => vec![
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
            format!("refs/remotes/{name}"),
            format!("refs/remotes/{name}/HEAD"),
            format!("refs/{name}"),
        ],
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
    // Shorter ones nobody means: git's own abbreviations have seven digits and more.
    if !found.is_empty() && (7..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        found.extend(objects(tree, name)?.into_iter().map(|commit| (format!("commit {commit}"), commit)));
    }
    Ok(found)
}

/// The commits whose ids begin so.
fn objects(tree: &Path, prefix: &str) -> Result<Vec<String>, RepositoryError> {
    let listed = Git::read(tree).arg("rev-parse").arg(format!("--disambiguate={prefix}")).text()?;
    let commits = listed.lines().map(|id| resolve_commit(tree, id));
    Ok(commits.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests;
