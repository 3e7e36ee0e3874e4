//! The instructions that a client shows its model before any call. Codex shows the first 250 characters only, so those
//! name the purpose and the loop; Claude Code shows up to 4,096.

/// At most 2,000 bytes.
pub(super) const INSTRUCTIONS: &str = "\
Lead many coding agents (codex, claude, gemini, opencode) in parallel, each in its own git worktree. Loop: \
batch_create_workers, then wait_for_any_worker, then integrate_worker or retry_worker, again until done. Spawn, message, \
cancel, status, merge.

You are the boss: split the work into self-contained missions, delegate all of them, keep all slots busy, and react to \
every settled worker at once. Do not do the work yourself and do not poll: wait_for_any_worker returns when something \
happens, with everything that settled since, each once. `still_running` only means that the time is up: call it again.

- A worker knows only its mission's prompt: goal, files, constraints, how to check. Give a verify_command if there is \
one; a mission is `completed` only if it passes.
- Use one batch_create_workers for several missions; those over the limit are queued. depends_on orders them.
- Trust `outcome` (run, verification, changes: facts), not `final_message` (the worker's claims).
- After a failure: retry_worker with feedback or another backend. A task that failed on two backends is `blocked`: \
narrow it.
- Worker ids (w-3 is enough) stay valid, and workers keep running when you or this server stop. list_worker_missions \
finds them again; .orchestrator/orchestrator-state.json is the record.
- Follow each answer's next_step. Errors name the accepted values.
- If a wait is moved to the background, end your turn: its end wakes you.
- Only wait_*, list_* and get_* run in parallel with other calls.
- In Codex's code mode begin a script that waits with: // @exec: {\"yield_time_ms\": 280000}
";

#[cfg(test)]
mod tests {
    use super::INSTRUCTIONS;

    #[test]
    fn first_250_characters_name_the_loop() {
        let shown_by_codex: String = INSTRUCTIONS.chars().take(250).collect();
        for word in ["parallel", "worktree", "batch_create_workers", "wait_for_any_worker", "integrate_worker"] {
            assert!(shown_by_codex.contains(word), "{word} is not in: {shown_by_codex}");
        }
        assert!(INSTRUCTIONS.len() <= 2_000, "{} bytes", INSTRUCTIONS.len());
    }
}
