//! What people see in a terminal, and with it: the real program in a real terminal (tmux), real servers and supervisors,
//! the fake CLI. The screens themselves are tested as tables beside the code; here is that they come to a terminal and
//! leave it as it was.

mod completion;
mod status;
mod terminal;
mod watch;
mod world;

#[path = "../support/json_lines.rs"]
mod json_lines;
