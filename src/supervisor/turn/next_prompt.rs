//! A further turn in the same process, for CLIs whose protocol allows it. It spares the start of a process and the
//! resumption of the session.

use super::running::Running;
use crate::attempt::status::Delivered;
use crate::supervisor::attempt::LiveAttempt;

impl Running {
    /// Begins a further turn with the messages that wait, if there are any and the CLI can. They count as delivered once
    /// the CLI shows that it works on them; until then they stay with this turn, which returns them to the queue.
    pub(super) fn prompt_next(&mut self, attempt: &mut LiveAttempt) -> bool {
        if attempt.inbox.must_stop() || attempt.inbox.over_budget().is_some() || !self.input.is_open() {
            return false;
        }
        let messages = attempt.inbox.take_queue();
        let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
        let text = messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n\n");
        if !self.decoder.prompt(&ids, &text) {
            messages.into_iter().for_each(|message| attempt.inbox.enqueue(message));
            return false;
        }
        (self.stop, self.idle_since) = (None, None);
        self.escalation = Default::default();
        for message in messages {
            attempt.status.record_receipt(message.id, Delivered::Sent);
            self.unconfirmed.push(message);
        }
        self.send_replies();
        true
    }
}
