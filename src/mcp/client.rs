//! Who is on the other end: what this client shows its model, how long it lets a call last, and whose session it is.
//! Facts about clients live here and nowhere else; each was seen in a run of the version named.

use std::env;
use std::sync::LazyLock;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::RequestMetaObject;
use rmcp::service::RequestContext;
use serde_json::Value;

use crate::mission::id::BossId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// 2.1.330.
    ClaudeCode,
    /// 0.169.0.
    Codex,
    /// 0.61.0.
    Gemini,
    /// 1.18.33.
    OpenCode,
    Unknown,
}

/// The longest wait that may be asked for at all.
pub(super) const LONGEST_WAIT_SECONDS: u64 = 6 * 60 * 60;

/// How long a wait lasts by default, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    default: u64,
    most: u64,
}

/// Claude Code hands its environment on: the user may have limited how long a call lasts, in milliseconds (2.1.330).
static CLAUDES_MOST: LazyLock<u64> =
    LazyLock::new(|| env::var("MCP_TOOL_TIMEOUT").map_or(LONGEST_WAIT_SECONDS, |limit| most_within(&limit)));

/// What is no number, and zero, is no limit.
fn most_within(limit: &str) -> u64 {
    limit.trim().parse().ok().filter(|limit| *limit > 0).map_or(LONGEST_WAIT_SECONDS, seconds_before)
}

/// It counts from before the call is sent, and takes it back up to half a second after its end: what is answered in
/// between nobody hears.
fn seconds_before(limit_ms: u64) -> u64 {
    ((limit_ms / 10 * 9).saturating_sub(1_000) / 1_000).clamp(1, LONGEST_WAIT_SECONDS)
}

impl Client {
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Self {
        context.client_info().map_or(Client::Unknown, |info| Self::named(&info.name))
    }

    fn named(name: &str) -> Self {
        match name {
            "claude-code" => Client::ClaudeCode,
            "codex-mcp-client" => Client::Codex,
            "gemini-cli-mcp-client" => Client::Gemini,
            "opencode" => Client::OpenCode,
            _ => Client::Unknown,
        }
    }

    /// Claude Code and Codex show their model the structured content alone, the others (as far as known) the text.
    pub(super) fn shows_structured(self) -> bool {
        matches!(self, Client::ClaudeCode | Client::Codex)
    }

    /// How long a wait shall last. `settled` is what the user's settings say: it also stands for what they let their
    /// client do. `progress`: the client asked to hear of progress, which makes some of them more patient.
    pub(super) fn wait(self, asked: Option<u64>, settled: Option<u64>, progress: bool) -> Duration {
        let Patience { default, most } = self.patience(progress);
        let most = most.max(settled.unwrap_or(0));
        Duration::from_secs(asked.or(settled).unwrap_or(default).min(most))
    }

    fn patience(self, progress: bool) -> Patience {
        match (self, progress) {
            // Ends a call after 28 h; a silent one after 30 min, and we are not silent.
            (Client::ClaudeCode, _) => Patience { default: 600, most: *CLAUDES_MOST },
            // Ends a call after 300 s, progress or not.
            (Client::Codex, _) => Patience { default: 240, most: 280 },
            // Ends a call after 600 s, progress or not.
            (Client::Gemini, _) => Patience { default: 240, most: 560 },
            // Ends a call after 60 s without progress.
            (Client::OpenCode, true) => Patience { default: 50, most: LONGEST_WAIT_SECONDS },
            (Client::Unknown, true) => Patience { default: 50, most: 280 },
            (Client::OpenCode | Client::Unknown, false) => Patience { default: 50, most: 50 },
        }
    }

    /// The boss that the request names by itself: Codex tells its session in each `_meta`.
    pub(super) fn boss(self, meta: &RequestMetaObject) -> Option<BossId> {
        if self != Client::Codex {
            return None;
        }
        let turn = meta.get("x-codex-turn-metadata");
        let session = text(meta.get("sessionId"))
            .or_else(|| text(turn.and_then(|turn| turn.get("session_id"))))
            .or_else(|| text(meta.get("threadId")))?;
        Some(BossId::from(format!("codex:{session}")))
    }

    /// What Claude Code calls this call in the transcript of its conversation.
    pub(super) fn call(self, meta: &RequestMetaObject) -> Option<&str> {
        text(meta.get("claudecode/toolUseId")).filter(|_| self == Client::ClaudeCode)
    }
}

/// A usable id; anything else is as good as none.
fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|text| !text.is_empty() && text.len() <= 200 && !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn waits_last_as_long_as_the_client_allows() {
        let cases = [
            (Client::ClaudeCode, None, None, true, 600),
            (Client::ClaudeCode, Some(21_600), None, true, 21_600),
            (Client::Codex, None, None, true, 240),
            (Client::Codex, Some(3_600), None, true, 280),
            (Client::Codex, None, Some(900), true, 900),
            (Client::Codex, Some(1_200), Some(900), true, 900),
            (Client::Gemini, None, None, true, 240),
            (Client::OpenCode, Some(300), None, false, 50),
            (Client::OpenCode, Some(300), None, true, 300),
            (Client::Unknown, None, None, false, 50),
            (Client::Unknown, None, Some(5), false, 5),
            (Client::Unknown, Some(0), None, false, 0),
        ];
        for (client, asked, settled, progress, seconds) in cases {
            let wait = client.wait(asked, settled, progress);
            assert_eq!(wait.as_secs(), seconds, "{client:?} {asked:?} {settled:?} {progress}");
        }
    }

    #[test]
    fn a_wait_ends_before_the_client_gives_it_up() {
        let cases = [("3000", 1), (" 10000 ", 8), ("600000", 539), ("100000000", LONGEST_WAIT_SECONDS)];
        let none = ["", "0", "-1", "soon"].map(|limit| (limit, LONGEST_WAIT_SECONDS));
        for (limit, seconds) in cases.into_iter().chain(none) {
            assert_eq!(most_within(limit), seconds, "{limit:?} ms");
        }
    }

    #[test]
    fn codex_names_its_session_and_nobody_else_may() {
        let meta = |value: Value| serde_json::from_value::<RequestMetaObject>(value).unwrap();
        let both = meta(json!({"sessionId": "s-1", "threadId": "t-1"}));
        assert_eq!(Client::Codex.boss(&both), Some(BossId::from("codex:s-1")));
        assert_eq!(Client::Codex.boss(&meta(json!({"threadId": "t-1"}))), Some(BossId::from("codex:t-1")));
        assert_eq!(Client::Codex.boss(&meta(json!({"sessionId": "a\nb"}))), None);
        assert_eq!(Client::Codex.boss(&meta(json!({"sessionId": 7}))), None);
        assert_eq!(Client::Unknown.boss(&both), None);
    }
}
