//! How many builds run at once, and whose turn it is.

use std::collections::VecDeque;

use tokio::sync::{mpsc, watch};

/// Lets builds in one after the other, in the order in which they came.
#[derive(Debug)]
pub struct Queue {
    at_once: usize,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Builds that came, ever.
    tickets: u64,
    waiting: VecDeque<u64>,
    running: usize,
}

/// A build's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Queue);

impl Queue {
    /// For so many builds at once, but at least one.
    pub fn new(at_once: usize) -> Self {
        Self { at_once: at_once.max(1), state: watch::Sender::default() }
    }

    /// Waits for a turn, and says how many builds are before this one whenever that changes.
    pub(crate) async fn enter(&self, output: &mpsc::Sender<String>) -> Turn<'_> {
        let place = Place::take(self);
        let mut state = self.state.subscribe();
        let mut told = 0;
        loop {
            if self.state.send_if_modified(|state| place.advance(state, self.at_once)) {
                return Turn(self);
            }
            let before = {
                let state = state.borrow_and_update();
                state.running + state.waiting.iter().take_while(|ticket| **ticket != place.ticket).count()
            };
            if before != told {
                told = before;
                let builds = if told == 1 { "another build".to_owned() } else { format!("{told} other builds") };
                // A receiver that went away does not stop the build.
                let _ = output.send(format!("       Waiting for {builds} of this platform")).await;
            }
            // The sender lives in `self`.
            let _ = state.changed().await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.running -= 1);
    }
}

/// A place in the queue, given up by whoever goes away.
struct Place<'a> {
    queue: &'a Queue,
    ticket: u64,
}

impl<'a> Place<'a> {
    fn take(queue: &'a Queue) -> Self {
        let mut ticket = 0;
        queue.state.send_modify(|state| {
            ticket = state.tickets;
            state.tickets += 1;
            state.waiting.push_back(ticket);
        });
        Self { queue, ticket }
    }

    /// From the head of the queue to a turn, if one is free.
    fn advance(&self, state: &mut State, at_once: usize) -> bool {
        let may = state.running < at_once && state.waiting.front() == Some(&self.ticket);
        if may {
            state.waiting.pop_front();
            state.running += 1;
        }
        may
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.state.send_if_modified(|state| {
            let waited = state.waiting.len();
            state.waiting.retain(|ticket| *ticket != self.ticket);
            state.waiting.len() != waited
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn builds_go_in_the_order_in_which_they_came_and_say_how_many_are_before_them() {
        let queue = Queue::new(2);
        let (output, mut lines) = mpsc::channel(10);
        let enter = || Box::pin(queue.enter(&output));
        let (first, second) = (enter().await, enter().await);
        let (mut third, mut fourth, mut fifth) = (enter(), enter(), enter());
        for waiting in [&mut third, &mut fourth, &mut fifth] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(fourth);
        drop(first);
        assert!((&mut fifth).now_or_never().is_none(), "somebody is before it");
        let third = third.now_or_never().expect("a turn is free");
        assert!((&mut fifth).now_or_never().is_none());
        drop(second);
        let fifth = fifth.now_or_never().expect("a turn is free");
        drop((third, fifth));
        let mut said = String::new();
        while let Ok(line) = lines.try_recv() {
            said += &line;
            said.push('\n');
        }
        insta::assert_snapshot!(said, @"
               Waiting for 2 other builds of this platform
               Waiting for 3 other builds of this platform
               Waiting for 4 other builds of this platform
               Waiting for 2 other builds of this platform
        ");
    }
}
