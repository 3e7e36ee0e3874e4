//! What a boss is told before it calls anything. Codex shows its model the first 250 characters and no more, so those
//! alone say what this is and how the loop goes; Claude Code shows up to 4,096.

/// At most 2,000 bytes.
pub(super) const INSTRUCTIONS: &str = "\
Lead many coding agents (codex, claude, gemini, opencode) in parallel, each in its own git worktree. Loop: \
batch_create_workers, then wait_for_any_worker, then integrate_worker or retry_worker, again until done. Spawn, message, \
cancel, status, merge.

You are the boss: split the work into self-contained missions, delegate all of them, keep the pool full, and react to \
every settlement at once. Do not do the work yourself and do not poll: wait_for_any_worker returns when something \
happened, and everything that settled since, each once. `still_running` only means that the time was up: call it again.

- A mission's prompt is all that its worker knows: goal, files, constraints, how to check. Give a verify_command where \
there is one; a mission is `completed` only when it passed.
- Use one batch_create_workers for several missions; what is over the limit is queued. depends_on orders them.
- Trust `outcome` (run, verification, changes: facts), not `final_message` (what the worker claims).
- After a failure: retry_worker with feedback or another backend. A task on which two backends failed is `blocked`: \
narrow it.
- Worker ids (w-3 is enough) last: workers go on when you or this server stop; list_worker_missions finds them again, and \
.orchestrator/orchestrator-state.json is the record.
- Follow each answer's next_step. Errors say what is accepted.
- Only wait_*, list_* and get_* run beside other calls.
- In Codex's code mode begin a script that waits with: // @exec: {\"yield_time_ms\": 280000}
";

#[cfg(test)]
mod tests {
    use super::INSTRUCTIONS;

    #[test]
    fn the_first_250_characters_are_enough_to_begin() {
        let shop_window: String = INSTRUCTIONS.chars().take(250).collect();
        for word in ["parallel", "worktree", "batch_create_workers", "wait_for_any_worker", "integrate_worker"] {
            assert!(shop_window.contains(word), "{word} is not in: {shop_window}");
        }
        assert!(INSTRUCTIONS.len() <= 2_000, "{} bytes", INSTRUCTIONS.len());
    }
}
