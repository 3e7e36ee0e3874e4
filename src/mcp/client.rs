//! Facts about clients: the part of an answer that they show their model, the time limits of calls, and the name of
//! their session. No other module knows clients. Each fact was observed in a run of the named version.

use std::env;
use std::sync::LazyLock;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProtocolVersion, RequestMetaObject};
use rmcp::service::RequestContext;
use serde_json::Value;

use crate::mission::id::{BossId, ThreadId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    ClaudeCode,
    Codex,
    Gemini,
    OpenCode,
    Unknown,
}

/// The thread of Codex that a call comes from, and how its turn began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CodexTurn {
    pub thread: ThreadId,
    pub id: String,
    pub began: TurnBegin,
}

/// The way in which a turn began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnBegin {
    /// With a message that `codex queue` stored.
    Queued,
    /// By `codex exec`, to which no queued message is delivered.
    Headless,
    /// In a terminal, with a message of the user.
    User,
}

/// The longest wait that a call may ask for.
pub(super) const LONGEST_WAIT_SECONDS: u64 = 6 * 60 * 60;

/// The default and the longest duration of a wait, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WaitLimits {
    default: u64,
    longest: u64,
}

/// The limit of a call that the user set for Claude Code, which passes its environment on.
static CLAUDE_LIMIT: LazyLock<u64> =
    LazyLock::new(|| env::var("MCP_TOOL_TIMEOUT").map_or(LONGEST_WAIT_SECONDS, |limit| longest_within(&limit)));

/// Returns the longest wait within a limit in milliseconds. Zero and any invalid text mean no limit.
fn longest_within(limit: &str) -> u64 {
    limit.trim().parse().ok().filter(|limit| *limit > 0).map_or(LONGEST_WAIT_SECONDS, seconds_before)
}

/// Returns a duration that ends safely before the limit, which counts from before the call is sent. Claude Code drops
/// answers that come later, but cancels the call only up to half a second afterwards.
fn seconds_before(limit_ms: u64) -> u64 {
    ((limit_ms / 10 * 9).saturating_sub(1_000) / 1_000).clamp(1, LONGEST_WAIT_SECONDS)
}

/// The way in which a call can wait, given how its client wakes a boss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waking {
    /// The wait answers as an MCP task, whose end starts a turn.
    Task,
    /// The call cannot become a task, so the wait blocks, unless a message can wake its thread ([`CodexTurn`]).
    Blocking,
}

impl Waking {
    /// Returns what this call allows. Only its own `_meta` counts: Claude Code declares tasks in each call of a terminal.
    /// It does not in calls of `claude -p`, nor in those of subagents on the same connection. A client of the older era
    /// that lists the extension does not support these tasks.
    pub(super) fn of(meta: &RequestMetaObject) -> Self {
        let is_modern = meta.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        let declares = meta.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks());
        if is_modern && declares { Waking::Task } else { Waking::Blocking }
    }
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

    /// Returns whether the client shows its model the structured content. Others show the text, as far as known.
    pub(super) fn shows_structured(self) -> bool {
        matches!(self, Client::ClaudeCode | Client::Codex)
    }

    /// Returns the duration of a wait. `configured` comes from the user's settings, and also raises the limit. Some
    /// clients allow longer calls that report progress.
    pub(super) fn wait(self, requested: Option<u64>, configured: Option<u64>, progress: bool) -> Duration {
        let WaitLimits { default, longest } = self.wait_limits(progress);
        let longest = longest.max(configured.unwrap_or(0));
        Duration::from_secs(requested.or(configured).unwrap_or(default).min(longest))
    }

    fn wait_limits(self, progress: bool) -> WaitLimits {
        match (self, progress) {
            // Ends a call after 28 h, and one without progress after 30 min.
            (Client::ClaudeCode, _) => WaitLimits { default: 600, longest: *CLAUDE_LIMIT },
            // Ends a call after 300 s, progress or not.
            (Client::Codex, _) => WaitLimits { default: 240, longest: 280 },
            // Ends a call after 600 s, progress or not.
            (Client::Gemini, _) => WaitLimits { default: 240, longest: 560 },
            // Ends a call after 60 s without progress.
            (Client::OpenCode, true) => WaitLimits { default: 50, longest: LONGEST_WAIT_SECONDS },
            (Client::Unknown, true) => WaitLimits { default: 50, longest: 280 },
            (Client::OpenCode | Client::Unknown, false) => WaitLimits { default: 50, longest: 50 },
        }
    }

    /// Returns the boss that the request names: Codex sends its session in each `_meta`.
    pub(super) fn named_boss(self, meta: &RequestMetaObject) -> Option<BossId> {
        if self != Client::Codex {
            return None;
        }
        let turn = meta.get("x-codex-turn-metadata");
        let session = id(meta.get("sessionId"))
            .or_else(|| id(turn.and_then(|turn| turn.get("session_id"))))
            .or_else(|| id(meta.get("threadId")))?;
        Some(BossId::from(format!("codex:{session}")))
    }

    /// Returns the turn of a call. `None` for another client, and for a version of Codex that does not report how the
    /// turn began.
    pub(super) fn codex_turn(self, meta: &RequestMetaObject) -> Option<CodexTurn> {
        // It becomes an argument of a program.
        let is_argument =
            |id: &&str| !id.starts_with('-') && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let thread = id(meta.get("threadId")).filter(|_| self == Client::Codex).filter(is_argument)?;
        let turn = meta.get("x-codex-turn-metadata")?;
        let began = match id(turn.get("turn_trigger"))? {
            "queue" => TurnBegin::Queued,
            "exec" => TurnBegin::Headless,
            _ => TurnBegin::User,
        };
        let turn = id(turn.get("turn_id"))?.to_owned();
        Some(CodexTurn { thread: ThreadId::from(thread), id: turn, began })
    }

    /// Returns the turn after which a message wakes its thread, or the reason why there is none.
    pub(super) fn turn_before_wake(self, turn: Option<&CodexTurn>) -> Result<&CodexTurn, &'static str> {
        match turn {
            Some(CodexTurn { began: TurnBegin::Headless, .. }) => Err("codex exec takes no further message"),
            Some(turn) => Ok(turn),
            None if self == Client::Codex => Err("this version of Codex does not say how the turn began"),
            None => Err("this client cannot be woken"),
        }
    }

    /// Returns the id of this call in the transcript of Claude Code.
    pub(super) fn tool_use_id(self, meta: &RequestMetaObject) -> Option<&str> {
        id(meta.get("claudecode/toolUseId")).filter(|_| self == Client::ClaudeCode)
    }
}

/// Returns a usable id, if there is one.
fn id(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|text| !text.is_empty() && text.len() <= 200 && !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn waits_keep_to_the_limits_of_the_client() {
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
        for (client, requested, configured, progress, seconds) in cases {
            let wait = client.wait(requested, configured, progress);
            assert_eq!(wait.as_secs(), seconds, "{client:?} {requested:?} {configured:?} {progress}");
        }
    }

    #[test]
    fn wait_ends_before_the_limit_of_claude_code() {
        let cases = [("3000", 1), (" 10000 ", 8), ("600000", 539), ("100000000", LONGEST_WAIT_SECONDS)];
        let none = ["", "0", "-1", "soon"].map(|limit| (limit, LONGEST_WAIT_SECONDS));
        for (limit, seconds) in cases.into_iter().chain(none) {
            assert_eq!(longest_within(limit), seconds, "{limit:?} ms");
        }
    }

    #[test]
    fn turns_of_terminals_can_be_woken() {
        let meta = |thread: &str, trigger: Value| {
            let meta = json!({"threadId": thread, "x-codex-turn-metadata": {"turn_id": "1", "turn_trigger": trigger}});
            serde_json::from_value::<RequestMetaObject>(meta).unwrap()
        };
        let cases = [
            (Client::Codex, "t-1", json!("user"), Some(TurnBegin::User), None),
            (Client::Codex, "t-1", json!("queue"), Some(TurnBegin::Queued), None),
            (Client::Codex, "t-1", json!("exec"), Some(TurnBegin::Headless), Some("exec")),
            (Client::Codex, "t-1", Value::Null, None, Some("version")),
            (Client::Codex, "--all", json!("user"), None, Some("version")),
            (Client::Codex, "a b", json!("user"), None, Some("version")),
            (Client::Unknown, "t-1", json!("user"), None, Some("client")),
        ];
        for (client, thread, trigger, began, reason) in cases {
            let turn = client.codex_turn(&meta(thread, trigger.clone()));
            assert_eq!(turn.as_ref().map(|turn| turn.began), began, "{client:?} {thread} {trigger}");
            let woken = client.turn_before_wake(turn.as_ref());
            assert!(woken.is_ok() == reason.is_none(), "{client:?} {thread} {trigger}: {woken:?}");
            assert!(woken.err().is_none_or(|why| why.contains(reason.unwrap())), "{trigger}");
        }
        assert_eq!(Client::Codex.codex_turn(&RequestMetaObject::default()), None);
    }

    #[test]
    fn only_a_modern_call_that_declares_tasks_gets_one() {
        let declared = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
        let cases = [
            ("2026-07-28", declared.clone(), Waking::Task),
            ("2026-07-28", json!({"elicitation": {}}), Waking::Blocking),
            ("2025-11-25", declared, Waking::Blocking),
        ];
        for (version, capabilities, waking) in cases {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": version,
                "io.modelcontextprotocol/clientCapabilities": capabilities,
            });
            assert_eq!(Waking::of(&serde_json::from_value(meta.clone()).unwrap()), waking, "{meta}");
        }
        assert_eq!(Waking::of(&RequestMetaObject::default()), Waking::Blocking);
    }

    #[test]
    fn only_codex_names_its_session() {
        let meta = |value: Value| serde_json::from_value::<RequestMetaObject>(value).unwrap();
        let both = meta(json!({"sessionId": "s-1", "threadId": "t-1"}));
        assert_eq!(Client::Codex.named_boss(&both), Some(BossId::from("codex:s-1")));
        assert_eq!(Client::Codex.named_boss(&meta(json!({"threadId": "t-1"}))), Some(BossId::from("codex:t-1")));
        assert_eq!(Client::Codex.named_boss(&meta(json!({"sessionId": "a\nb"}))), None);
        assert_eq!(Client::Codex.named_boss(&meta(json!({"sessionId": 7}))), None);
        assert_eq!(Client::Unknown.named_boss(&both), None);
    }
}
