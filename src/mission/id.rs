//! Ids of workers, tasks, bosses, servers and backends, as newtypes. The registry determines the next number. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

// Thousands of workers share a few ids, so a clone shares the text.
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
    /// `race-<number of its first worker>`, which is unique for ever.
    RaceId
}
text_id! {
    /// An agent that calls the tools: `claude:<session>`, `codex:<session>`, or `anon:<server>` for a client that names
    /// no session.
    BossId
}
impl BossId {
    /// Returns the boss of a client that names no session. Its server identifies it.
    pub fn anonymous(server: &ServerId) -> Self {
        Self::from(format!("anon:{server}"))
    }

    /// Returns the boss of a session of Claude Code. `None` if the session id is unusable.
    pub fn of_claude(session: &str) -> Option<Self> {
        let usable = !session.is_empty() && session.len() <= 200 && !session.contains(char::is_control);
        usable.then(|| Self::from(format!("claude:{session}")))
    }

    /// Returns the boss of a one-shot client, such as a command of the user. It owns no workers.
    pub fn one_shot_client(server: &ServerId) -> Self {
        Self::from(format!("client:{server}"))
    }

    pub fn is_one_shot_client(&self) -> bool {
        self.0.starts_with("client:")
    }

    pub fn is_anonymous(&self) -> bool {
        self.0.starts_with("anon:")
    }

    /// Returns whether this boss is the anonymous one of that server.
    pub fn is_of(&self, server: &ServerId) -> bool {
        self.0.strip_prefix("anon:") == Some(server.as_str())
    }
}

text_id! {
    /// One running server process; its liveness is a file lock of the same name.
    ServerId
}
text_id! {
    /// A conversation of a client, by the id with which the client's own command finds it.
    ThreadId
}
text_id! {
    /// The name of a backend: one of the four built in, or one from the user's settings.
    BackendName
}

/// Longest id of a background wait, in bytes. Clients allow 1024.
const WAIT_LIMIT: usize = 80;

text_id! {
    /// A wait that goes on in the background: `wait-any-3-of-5-k7f2` or `wait-w-3-fix-parser-k7f2`. A boss sees only this
    /// id until the wait ends, so the id describes the wait.
    WaitId
}
impl WaitId {
    pub fn new(what: &str, suffix: &str) -> Self {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        let what: String = what.chars().filter(plain).take(WAIT_LIMIT - "wait--".len() - suffix.len()).collect();
        Self::from(format!("wait-{what}-{suffix}"))
    }

    /// Returns the id that a client names, if this program can have created it. It is also the name of a file.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (text.starts_with("wait-") && text.len() <= WAIT_LIMIT && is_plain).then(|| Self::from(text))
    }
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

    /// Returns the number in an id, or in a prefix of one with the whole number (`w-3`, `w-3-fix`).
    pub fn number_in(text: &str) -> Option<u64> {
        let rest = text.strip_prefix("w-")?;
        let digits = rest.split('-').next().unwrap_or_default();
        let canonical = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| canonical)
    }

    /// Returns the id that a worker's folder is named after.
    pub fn from_folder(name: &str) -> Option<Self> {
        Self::number_in(name).map(|_| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the id without the title, such as `w-3`. It names the worker unless a task or a branch has the same name.
    pub fn short(&self) -> &str {
        let end = self.0.match_indices('-').nth(1).map_or(self.0.len(), |(at, _)| at);
        &self.0[..end]
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the ASCII letters and digits of a title in lower case, with words joined by hyphens.
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
    fn ids_are_safe_in_paths_and_branches() {
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
    fn wait_id_is_a_plain_file_name() {
        let long = WaitId::new(&"w-3-ünd so weiter ".repeat(20), "k7f2");
        assert_eq!(WaitId::parse(long.as_str()), Some(long.clone()), "{long}");
        assert!(long.as_str().ends_with("-k7f2"), "{long}");
        for text in ["", "wait", "w-3", "wait-../../etc", "wait-a b", "wait-é", &format!("wait-{}", "a".repeat(80))] {
            assert_eq!(WaitId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn prefix_needs_the_whole_number() {
        assert_eq!(WorkerId::number_in("w-3-fix-parser"), Some(3));
        assert_eq!(WorkerId::number_in("w-31"), Some(31));
        assert_eq!(WorkerId::number_in("w-3-"), Some(3));
        for text in ["w-", "w", "3", "w-x", "w-+3", "W-3", ""] {
            assert_eq!(WorkerId::number_in(text), None, "{text:?}");
        }
    }
}
