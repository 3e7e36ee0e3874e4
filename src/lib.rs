//! orchestrator-boss: one coding agent (the boss) leads many worker CLIs. This page is the map for a new engineer.
//!
//! Two kinds of process share this crate. The **server** speaks MCP to the boss and keeps the registry of all missions.
//! For each live worker it starts a **supervisor**, which owns the worker's CLI for a whole attempt and outlives the
//! server. They communicate through the files of `.orchestrator/` (see [`store`]); a socket only makes this faster. The
//! reasons for this design, and its invariants, are in `.github/ARCHITECTURE.md`.
//!
//! # Rooms
//!
//! A room uses only rooms below it, rooms on one line do not know each other, and the files of a room import each other
//! in no circle. `tests/architecture.rs` checks all three.
//!
//! ```text
//! cli            commands for people; prints to stdout; starts every process
//! mcp            tools, resources and prompts for bosses; the only room that names the protocol library
//! orchestrator   the server's state: components that decide, an actor that saves and answers, tasks that report to it
//! launcher       how a supervisor is started and reached: here, or as a job of a cluster
//! supervisor     the other process: turns, messages, limits, verification, outcome
//! store          the journal of the servers, the history, the state file for people and bosses
//! attempt        the contract between server and supervisor: folders, assignment, inbox, claim, status, outcome record
//! config         the user's settings
//! backend  process  git  files    CLIs (pure), operating-system processes, git, atomic files and leases
//! mission        the pure core: missions, the legal status changes, the registry, rules for starts and retries
//! ```
//!
//! [`crash_point`] is for tests: named steps at which a debug build can crash. [`docs`] holds the reference documents.
//!
//! # The path of one batch
//!
//! 1. `mcp/server.rs` receives the call `batch_create_workers`. `mcp/tools/create.rs` parses it; `mcp/tools/mission.rs`
//!    checks each mission and makes a draft. A bad mission fails alone.
//! 2. `orchestrator/handle.rs` sends the drafts to the actor. `orchestrator/checks.rs` finds what can be refused before
//!    anything is created.
//! 3. `orchestrator/actor.rs` registers the missions (`mission/create.rs`), appends them to the journal
//!    (`store/journal.rs`) and answers with their ids. Nothing slow has happened yet.
//! 4. `orchestrator/admission.rs` takes workers out of the queue, as far as `mission/admission.rs` (limits) and
//!    `mission/graph.rs` (dependencies) allow.
//! 5. `orchestrator/start.rs` creates the worktree (`git/worktree.rs`) and the folder of the attempt, and starts a
//!    supervisor (`launcher/local.rs`). From here on `orchestrator/follow.rs` follows it. If the mission runs on a
//!    cluster, `orchestrator/follow/remote.rs` submits a job instead (`launcher/slurm/`), and follows that.
//! 6. The supervisor (`supervisor/run.rs`) claims the attempt and sets up the worktree (`supervisor/setup.rs`). For
//!    each turn (`supervisor/turn.rs`) it asks the backend for a launch plan, starts the CLI (`process/spawn.rs`), and
//!    turns its output into events (`backend/codex.rs`, …).
//! 7. `supervisor/finish.rs` ends the attempt: commit what is uncommitted (`supervisor/uncommitted.rs`), verify that
//!    commit (`supervisor/verify.rs`), end all processes (`process/sweep.rs`), read the changes (`attempt/facts.rs`),
//!    write the outcome record.
//! 8. `orchestrator/settle.rs` applies the outcome. The actor saves, `orchestrator/waits.rs` answers the waits, and
//!    step 4 starts what has become possible.
//! 9. `mcp/tools/integrate.rs` merges: `orchestrator/train.rs` stacks the branches, `orchestrator/verify.rs` has the
//!    result verified in a worktree of its own, and `git/land.rs` moves the integration branch.
//!
//! # Glossary
//!
//! | word | meaning |
//! |---|---|
//! | mission | a request: prompt, backend, place, limits |
//! | worker | one mission that is carried out by one backend |
//! | attempt | one run of a worker; a retry is the next one |
//! | setup | the run of `setup_command` in a worktree, before its CLI starts |
//! | turn | one prompt and the CLI's work on it; an attempt has one or more. A CLI's own turn limit counts its steps |
//! | backend | the adapter of one CLI |
//! | ACP | the Agent Client Protocol: requests and answers as lines of JSON on stdin and stdout, in both directions |
//! | boss | the agent that calls the tools |
//! | server, supervisor | the two kinds of process |
//! | launcher | how a supervisor is started: on the server's host, or as a job of a cluster that the settings name |
//! | job, engine | what runs a supervisor on a cluster; the scheduler of the cluster |
//! | heartbeat | the changes of a job's status file, by which other hosts see that its supervisor lives |
//! | to fence, to revoke | to take the claim of an attempt before it begins; from a supervisor that cannot be reached |
//! | worktree, base, branch, integration branch | as in git |
//! | outcome | the record that settles an attempt: run, verification, changes |
//! | settled | has an outcome; in texts for people: finished |
//! | background wait | a wait that goes on after its call was answered: an MCP task of a client that can wake its boss |
//! | notification | the report of a settlement to its boss: pending, in flight, unconfirmed, acknowledged |
//! | wake, pointer | the start of a turn of a boss that has ended its turn; the message that does it, with counts only |
//! | thread | a conversation of a client whose own command can start a turn in it |
//! | user event | what the user's `notify_command` receives: finished, failed, needs_answer, all_done |
//! | question, decision | a request of a CLI that waits; its answer, by the boss, the user or the time limit |
//! | form | several questions of a CLI that are answered together; to a client: questions that it shows to the user |
//! | lease | which server looks after an open worker |
//! | claim | the file by which one supervisor owns one attempt |
//! | presence | the file by which a server shows other hosts that it lives |
//! | journal, segment, snapshot | the append-only log; one file of it; the state at its beginning |
//! | salvage ref | where work is kept before it is removed by force |
//! | confinement | the kernel's limits on what a worker can write and read: see `process/confine` |
//! | clone (of a worker) | the repository of its own in the worktree of a confined worker: see `git/own_clone` |
//! | build, pruning | a folder that tools create again, such as `node_modules`; its deletion from a worktree |
//! | train | several branches that are integrated in order and verified together |
//! | race | several workers on one prompt; the first verified one wins |
//! | profile | a named set of mission fields in the user's settings |
//! | context | the final messages of other workers, before a worker's prompt |
//!
//! # Three typical changes
//!
//! After each of them: `cargo fmt`, `cargo clippy --all-targets -- -D warnings`, and the tests that are named.
//!
//! **Add a backend.**
//!
//! 1. `backend/catalog.rs`: add a constant for its name, its models, an example model and its efforts. A CLI without
//!    models or efforts has none, and `check` refuses them.
//! 2. `backend/NAME.rs`: implement [`backend::Backend`] (command line, permissions). `backend/NAME/stream.rs`:
//!    implement [`backend::Decoder`] (output lines to events). `backend/probe.rs`: how its version and login are asked.
//!    A model is `backend/opencode.rs` with `backend/opencode/stream.rs`. Declare and export it in `backend/mod.rs`. The
//!    prompt goes to stdin: it may have 1 MiB, and Linux allows 128 KiB for one argument, which other users can read.
//! 3. `backend/registry.rs`: add it to the built-in backends. `backend/custom.rs`: reserve its name.
//!    `backend/environment.rs`: add the variables with which this CLI marks the programs that it starts.
//! 4. Recordings, at least ten: for each case a folder `tests/fixtures/NAME/CASE/` with `stream.jsonl` (what the CLI
//!    printed) and `case.json` (how it ended, why the case exists, and the `script` with which `tests/real/drift.rs`
//!    makes the CLI print it again). Add the name to the lists in `tests/backend_streams.rs`,
//!    `tests/backend_hostile_output.rs` and `tests/fuzz/main.rs`.
//!    `UPDATE_FIXTURES=1 cargo test --test backend_streams` writes the expected events: read them.
//! 5. `tests/backend_plans.rs`: add a mission for it. `INSTA_UPDATE=always cargo test --test backend_plans` records how
//!    it is started. Read the snapshot. If npm can install the CLI, add it to `tests/support/real_cli.rs` and
//!    `tests/real/package.json`; a missing one skips all of `tests/real/`.
//! 6. Texts that list the backends: `git grep -niw opencode -- src skills README.md .github .npm tests` finds them, among
//!    them tool descriptions, error texts in tests, the table in `skills/orchestrator-boss/SKILL.md`, and a column of
//!    the table of clients in `tests/README.md`. Then `ORCHESTRATOR_BLESS=1 cargo test --test mcp --test documents`.
//! 7. If it can also be a boss: `cli/setup/client.rs` and a file beside it, `mcp/client.rs` (its limits, and whether it
//!    shows structured answers), `orchestrator/registrations.rs` (so that its workers do not start this server), and
//!    `src/docs/clients.md`.
//!
//! An agent that speaks the Agent Client Protocol needs none of this but a preset: a constant in
//! `backend/agents/presets.rs`, its name in the README and in the skill (`tests/documents.rs` names what is missing, and
//! writes the table in `src/docs/agents.md`), the snapshot of step 5 and, if a registry has it, a variant in
//! `tests/support/acp_agents.rs`.
//!
//! **Add a parameter to a tool**, here a field of a mission. A parameter of another tool is a field of the `Arguments` in
//! its file in `mcp/tools/`, and goes to the method of `orchestrator/handle.rs` that the tool calls.
//!
//! 1. `mcp/tools/mission.rs`: the field of `MissionArguments`. Its doc comment is what models read. Check its range in
//!    `draft`, with the helpers of `mcp/arguments.rs`. If profiles may set it: also a field of `Profile` in
//!    `config/profiles.rs`, with its check there. If not: a row in `config/fields.rs` that says why.
//! 2. `mission/create.rs` and `mission/spec.rs`: the field of `Draft` and of `Mission`. `Mission` is stored: give the
//!    field `#[serde(default)]`, so that older journals can be read. `cargo check --all-targets` names every literal.
//! 3. The room that acts on it. The supervisor has the whole mission in its assignment, and a backend has it in
//!    `Turn::mission`. `supervisor/limits.rs` enforces limits.
//! 4. `mcp/wire/worker.rs` (every answer with a worker) and `mcp/wire/outcome.rs`, if answers show it. Set it to its
//!    longest value in `mcp/wire/testing.rs`. Limits are named in the text of `budget_of` in `orchestrator/views.rs`.
//! 5. Tests: a range in `tests/input/table.rs`, the effect in `tests/workers/`. Then
//!    `ORCHESTRATOR_BLESS=1 cargo test --test mcp` writes `tests/snapshots/tools.json` and the table in
//!    `src/docs/tools.md`. By hand: the section on missions there, and the fields of a mission in
//!    `skills/orchestrator-boss/SKILL.md`.
//!
//! **Change a limit.**
//!
//! 1. Find it. Limits are named constants beside the code that enforces them: the ranges of a tool's arguments in its
//!    file in `mcp/tools/`, in `mcp/arguments.rs` or `config/fields.rs`, the default time limit in `mission/spec.rs`,
//!    sizes of answers in `mcp/size.rs`, the size of one call in `mcp/transport.rs` (a batch has no limit of its own),
//!    the waits of each client in `mcp/client.rs`, sizes of reports in `mission/context.rs`. Limits that a user can set
//!    are in `config.rs`.
//! 2. Search for its number and its name in the doc comments of `mcp/tools/`, in `skills/`, `src/docs/`, `tests/` and the
//!    README: texts repeat limits. A constant may be a product.
//! 3. Tests: `cargo test --test input --test mcp`, and `tests/limits/` for limits on workers. Generated texts:
//!    `ORCHESTRATOR_BLESS=1 cargo test --test mcp --test documents`.
#![deny(clippy::print_stdout)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod attempt;
pub mod backend;
pub mod cli;
pub mod config;
pub mod crash_point;
pub mod files;
pub mod git;
pub mod launcher;
pub mod mcp;
pub mod mission;
pub mod orchestrator;
pub mod process;
pub mod store;
pub mod supervisor;

/// The reference documents for users.
pub mod docs {
    #[doc = include_str!("docs/commands.md")]
    pub mod commands {}
    #[doc = include_str!("docs/settings.md")]
    pub mod settings {}
    #[doc = include_str!("docs/tools.md")]
    pub mod tools {}
    #[doc = include_str!("docs/clients.md")]
    pub mod clients {}
}
