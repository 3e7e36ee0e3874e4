//! Names of things: workers, tasks, bosses, servers, backends. Newtypes, so that one is never passed for another.
//! Making an id is pure; which number is next is the registry's business.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

// Thousands of workers name the same few of them, so a copy shares the text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// The boss's own key for a task, or the worker's id where the boss gave none.
    TaskId
}
text_id! {
    /// `race-<number of its first worker>`: unique for ever, as that number is.
    RaceId
}
text_id! {
    /// Who leads: `claude:<session>`, `codex:<session>`, or `anon:<server>` for a client that names no session.
    BossId
}
impl BossId {
    /// The boss of a client that names no session: known by the server that it started.
    pub fn anonymous(server: &ServerId) -> Self {
        Self::from(format!("anon:{server}"))
    }

    /// A session of Claude Code; an id that is no usable one is nobody's.
    pub fn of_claude(session: &str) -> Option<Self> {
        let usable = !session.is_empty() && session.len() <= 200 && !session.contains(char::is_control);
        usable.then(|| Self::from(format!("claude:{session}")))
    }

    /// Whoever acts by a command and goes again. No worker is a visitor's own.
    pub fn visitor(server: &ServerId) -> Self {
        Self::from(format!("visitor:{server}"))
    }

    pub fn is_visitor(&self) -> bool {
        self.0.starts_with("visitor:")
    }

    pub fn is_anonymous(&self) -> bool {
        self.0.starts_with("anon:")
    }

    /// Whether this boss is the anonymous one of that server.
    pub fn is_of(&self, server: &ServerId) -> bool {
        self.0.strip_prefix("anon:") == Some(server.as_str())
    }
}

text_id! {
    /// One running server process; its liveness is a file lock of the same name.
    ServerId
}
text_id! {
    /// The name of a backend: one of the four built in, or one from the user's settings.
    BackendName
}

/// Longest slug of a worker id, in bytes: long enough to recognise, short enough for branch names and socket paths.
const SLUG_LIMIT: usize = 32;

/// `w-<number>-<slug>`, such as `w-3-fix-parser`. The number alone is unique for ever in a state directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(String);

impl WorkerId {
    pub fn new(number: u64, title: &str) -> Self {
        match slug(title) {
            slug if slug.is_empty() => Self(format!("w-{number}")),
            slug => Self(format!("w-{number}-{slug}")),
        }
    }

    /// The number in an id or in a prefix of one that holds the whole number (`w-3`, `w-3-fix`); `None` for anything else.
    pub fn number_in(text: &str) -> Option<u64> {
        let rest = text.strip_prefix("w-")?;
        let digits = rest.split('-').next().unwrap_or_default();
        let canonical = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| canonical)
    }

    /// From the name of a worker's folder.
    pub fn from_folder(name: &str) -> Option<Self> {
        Self::number_in(name).map(|_| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// ASCII letters and digits of a title, lower case, words joined by single hyphens.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    for word in title.split(|c: char| !c.is_ascii_alphanumeric()) {
        if word.is_empty() {
            continue;
        }
        if slug.len() + 1 + word.len() > SLUG_LIMIT {
            if slug.is_empty() {
                slug.push_str(&word[..SLUG_LIMIT]);
            }
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(word);
    }
    slug.make_ascii_lowercase();
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_readable_and_safe_in_paths_and_branches() {
        let cases = [
            ("Fix parser", "w-3-fix-parser"),
            ("  ../../etc/passwd\0 ", "w-3-etc-passwd"),
            ("日本語", "w-3"),
            ("--force", "w-3-force"),
            ("Supercalifragilisticexpialidocious-and-more", "w-3-supercalifragilisticexpialidocio"),
            ("one two three four five six seven eight nine", "w-3-one-two-three-four-five-six"),
        ];
        for (title, id) in cases {
            assert_eq!(WorkerId::new(3, title).as_str(), id, "{title:?}");
        }
    }

    #[test]
    fn a_prefix_counts_only_with_its_whole_number() {
        assert_eq!(WorkerId::number_in("w-3-fix-parser"), Some(3));
        assert_eq!(WorkerId::number_in("w-31"), Some(31));
        assert_eq!(WorkerId::number_in("w-3-"), Some(3));
        for text in ["w-", "w", "3", "w-x", "w-+3", "W-3", ""] {
            assert_eq!(WorkerId::number_in(text), None, "{text:?}");
        }
    }
}
