//! What the membership orders a lockspace to do, in its order, on a thread of the lockspace's own. A recovery of a million
//! locks keeps the engine busy for longer than a heartbeat may be late: the driver never waits for one.

use super::links::Whole;
use super::space::{Callback, Shared};
use crate::engine::Event;
use crate::recovery::Start;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// See the module.
pub(super) enum Order {
    /// Locking stops; `told`, if there is anyone to be told, once the client knows.
    Stop { told: Option<oneshot::Sender<()>> },
    /// A round of recovery begins.
    Start(Start),
    /// The client is to be told.
    Tell(Callback),
    /// The last one; the driver hears when it is done, if it has left the lockspace in some order.
    End { left: bool },
}

/// The thread; ends with [`Order::End`].
pub(super) fn serve(shared: &Arc<Shared>, orders: &Receiver<Order>) {
    // If it panics, the lockspace has not stopped, and may grant what others have.
    let _whole = Whole(&shared.links);
    let mut in_order = false;
    while let Ok(order) = orders.recv() {
        match order {
            Order::Stop { told } => {
                shared.feed(Event::Stop);
                if let Some(told) = told {
                    shared.callback(Callback::Barrier(told));
                }
            }
            Order::Start(start) => shared.feed(Event::Start(start)),
            Order::Tell(callback) => shared.callback(callback),
            Order::End { left } => {
                in_order = left;
                break;
            }
        }
    }
    shared.wind_up(in_order);
}
