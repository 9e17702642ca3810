//! A process that dies at some point.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Dies after so many polls; `None` = it died.
pub(crate) struct Mortal<F> {
    future: Pin<Box<F>>,
    polls_left: usize,
}

impl<F> Mortal<F> {
    pub(crate) fn new(future: F, polls_left: usize) -> Self {
        Self {
            future: Box::pin(future),
            polls_left,
        }
    }
}

impl<F: Future> Future for Mortal<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        self.future.as_mut().poll(context).map(Some)
    }
}
