//! Finds the settings of one repository: those for its path, or else those for the URL of one of its remotes.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use super::RepositorySettings;

/// Returns the settings of the repository with this root. `remotes` is called only if an entry may name a URL.
pub(super) fn find<'a>(
    entries: &'a BTreeMap<String, RepositorySettings>,
    root: &Path,
    remotes: impl FnOnce() -> Vec<String>,
) -> Option<&'a RepositorySettings> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let root = real(root.to_owned());
    let by_path = entries.iter().find(|(name, _)| path_of(name).is_some_and(|path| real(path) == root));
    if let Some((_, found)) = by_path {
        return Some(found);
    }
    if entries.keys().all(|name| path_of(name).is_some()) {
        return None;
    }
    let remotes: Vec<String> = remotes().iter().map(|url| place_of(url)).collect();
    entries.iter().find(|(name, _)| remotes.contains(&place_of(name))).map(|(_, found)| found)
}

/// Returns whether the name of an entry is an absolute path or a URL, so that it can be that of a repository.
pub(super) fn is_name(name: &str) -> bool {
    // A host may stand alone, as in `example.org/a/b`. A relative path could have the same form, but its first folder
    // rarely has a dot inside.
    let is_host = |host: &str| !host.starts_with('.') && host.trim_end_matches('.').contains('.');
    let parts = match name.split_once("://") {
        Some(parts) => return !parts.0.is_empty() && !parts.1.is_empty(),
        None if name.starts_with('/') || name.starts_with("~/") => return true,
        // As in `git@host:path`.
        None => name.split_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/')),
    };
    match parts {
        Some((_, path)) => !path.is_empty(),
        None => name.split_once('/').is_some_and(|(host, path)| is_host(host) && !path.is_empty()),
    }
}

/// Returns the path that a name means. `None` for a URL.
fn path_of(name: &str) -> Option<PathBuf> {
    match name.strip_prefix("~/") {
        Some(rest) => Some(PathBuf::from(env::var_os("HOME")?).join(rest)),
        None => name.starts_with('/').then(|| PathBuf::from(name)),
    }
}

/// Returns the host and the path of a URL, which are the same for every protocol and user.
fn place_of(url: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    let url = url.strip_suffix(".git").unwrap_or(url).trim_end_matches('/');
    if url.starts_with('/') {
        return url.to_owned();
    }
    let (host, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/').unwrap_or((rest, "")),
        // As in `git@host:path`.
        None => match url.split_once(':').filter(|(host, _)| !host.contains('/')) {
            Some(parts) => parts,
            None => url.split_once('/').unwrap_or((url, "")),
        },
    };
    let host = host.rsplit('@').next().unwrap_or(host);
    let host = host.split(':').next().unwrap_or(host);
    format!("{}/{}", host.to_ascii_lowercase(), path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_the_same_for_every_protocol() {
        for url in [
            "https://example.org/a/b",
            "https://example.org/a/b.git",
            "https://user:secret@Example.org/a/b.git/",
            "ssh://git@example.org:2222/a/b.git",
            "git@example.org:a/b.git",
            "example.org:/a/b",
            "example.org/a/b",
        ] {
            assert_eq!(place_of(url), "example.org/a/b", "{url}");
        }
        for (url, place) in [
            ("https://example.org/A/b", "example.org/A/b"),
            ("/srv/git/b.git", "/srv/git/b"),
            ("file:///srv/git/b", "/srv/git/b"),
        ] {
            assert_eq!(place_of(url), place, "{url}");
        }
    }

    #[test]
    fn name_is_an_absolute_path_or_a_url() {
        for name in [
            "/src/shop",
            "~/src/shop",
            "https://example.org/a/b",
            "file:///srv/git/b",
            "ssh://git@localhost/a",
            "git@example.org:a/b.git",
            "host:a",
            "example.org/a/b",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "shop", "rel/x", "./x", "../x", ".hidden/x", "~", "~user/x", "https://", "://x", ":x", "host:"]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn path_wins_over_remote() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let named = |command: &str| RepositorySettings {
            setup_command: Some(command.to_owned()),
            ..RepositorySettings::default()
        };
        let path = root.join(".").to_string_lossy().into_owned();
        let mut entries = BTreeMap::from([
            ("/elsewhere".to_owned(), named("other")),
            ("https://example.org/a/b".to_owned(), named("remote")),
            (path.clone(), named("path")),
        ]);
        let remotes = || vec!["git@example.org:a/b.git".to_owned()];
        assert_eq!(find(&entries, &root, remotes), Some(&named("path")));
        entries.remove(&path);
        assert_eq!(find(&entries, &root, remotes), Some(&named("remote")));
        assert_eq!(find(&entries, &root, Vec::new), None);
        entries.remove("https://example.org/a/b");
        assert_eq!(find(&entries, &root, || panic!("no entry names a URL")), None);
    }
}
