//! Prompts that a client offers its user, as commands in most: beginning to orchestrate, and looking at what came of it.

use rmcp::model::{ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};

use super::arguments::{self, ArgumentError};

const ORCHESTRATE: &str = "orchestrate";
const REVIEW: &str = "review-workers";
/// Longest goal, in bytes.
const GOAL: usize = 32 * 1024;

const LOOP: &str = "\
Lead worker agents to reach this goal. Use the tools of orchestrator-boss, and its skill if you have it.

1. get_backend_status: which agent CLIs can work here.
2. Split the goal into missions that can be done and checked each by itself: goal, files, constraints, how to check. Give \
each a verify_command. What builds on another goes into depends_on.
3. batch_create_workers with all of them.
4. wait_for_any_worker, and follow the next_step of each that settled: integrate_worker where it is completed and \
verified, retry_worker with feedback or another backend where it is not, send_message_to_worker where it asks. Then wait \
again, until nothing runs.
5. Check the whole, and tell the user what was done, what was not, and why.

Do not do the work yourself, and do not poll.

The goal:
";

const REVIEW_TEXT: &str = "\
Look at the worker agents of orchestrator-boss and judge what is there. Change nothing before the user agrees.

1. list_worker_missions: who runs, who is queued, who settled how.
2. get_worker_status of each that settled and is not integrated, with include [\"diff\"]. Trust its outcome (run, \
verification, changes), not its last words.
3. Tell the user for each in one line: what it was for, how it ended, whether it verifies, and what you would do next \
(integrate_worker, retry_worker with which feedback, remove_worktree, nothing). Name what is blocked or stalled first.";

pub(super) fn list() -> Vec<Prompt> {
    let goal =
        PromptArgument::new("goal").with_description("What shall be reached, in a few sentences").with_required(true);
    vec![
        Prompt::new(ORCHESTRATE, Some("Reach a goal with worker agents: split, start, wait, merge"), Some(vec![goal])),
        Prompt::new(REVIEW, Some("Look at the worker agents there are, judge their work, say what is next"), None),
    ]
}

pub(super) fn get(name: &str, arguments: Option<JsonObject>) -> Result<GetPromptResult, ErrorData> {
    let text = match name {
        ORCHESTRATE => format!("{LOOP}{}", goal(arguments).map_err(|error| ErrorData::invalid_params(error, None))?),
        REVIEW => REVIEW_TEXT.to_owned(),
        _ => {
            let name: String = name.chars().take(80).collect();
            let why = format!("there is no prompt {name:?}; there are {ORCHESTRATE} (argument goal) and {REVIEW}");
            return Err(ErrorData::invalid_params(why, None));
        }
    };
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]))
}

fn goal(arguments: Option<JsonObject>) -> Result<String, String> {
    let goal = arguments.as_ref().and_then(|arguments| arguments.get("goal")).and_then(|goal| goal.as_str());
    let goal = goal.ok_or_else(|| "the argument goal is missing: a text that says what shall be reached".to_owned())?;
    arguments::text("goal", goal.to_owned(), GOAL).map_err(|error: ArgumentError| error.to_string())
}
