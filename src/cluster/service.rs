//! The lock service that a node speaks to: the one of the crate `lockclient`, or, with the feature `simulated`, whatever a test
//! puts in its place (`tests/sim.rs`: the same engines, over a network that a seed decides about).

#[cfg(feature = "simulated")]
pub(super) use lockclient::node::space::Unsaid;
#[cfg(not(feature = "simulated"))]
pub(super) use lockclient::node::{
    Node,
    space::{LockSpace, Unsaid},
};
#[cfg(feature = "simulated")]
pub use simulated::{LockSpace, Node, Service, Space};

#[cfg(feature = "simulated")]
mod simulated {
    use lockclient::engine::Config;
    use lockclient::flags::LockFlags;
    use lockclient::ids::LockId;
    use lockclient::inspect::SpaceView;
    use lockclient::mode::Mode;
    use lockclient::node::JoinError;
    use lockclient::node::space::{LockClient, LockRequest, Progress, Unsaid};
    use lockclient::status::Refusal;
    use std::sync::Arc;

    /// A lockspace, as `lockclient::node::space::LockSpace`.
    pub trait Space: Send + Sync {
        /// A new lock.
        fn request(&self, request: LockRequest<'_>) -> Result<Progress, Refusal>;
        /// Another mode for a lock.
        fn convert(
            &self,
            lock: LockId,
            mode: Mode,
            flags: LockFlags,
            lvb: Option<Box<[u8]>>,
        ) -> Result<Progress, Refusal>;
        /// Gives a lock up, or what it waits for.
        fn unlock(&self, lock: LockId, flags: LockFlags, lvb: Option<Box<[u8]>>) -> Result<Progress, Refusal>;
        /// Has it been left, or is the node gone?
        fn has_ended(&self) -> bool;
        /// Is locking allowed?
        fn is_running(&self) -> bool;
    }

    /// A node, as `lockclient::node::Node`.
    pub trait Service: Send + Sync {
        /// Enters a lockspace; waits until this node is a full member.
        fn join(&self, name: &str, client: Arc<dyn LockClient>) -> Result<Arc<dyn Space>, JoinError>;
        /// Leaves it; waits until the others go on without us.
        fn release(&self);
    }

    /// A handle on a lockspace.
    #[derive(Clone)]
    pub struct LockSpace(Arc<dyn Space>);

    /// A running node.
    pub struct Node(Box<dyn Service>);

    impl Node {
        /// Whatever a test made.
        pub fn new(service: impl Service + 'static) -> Self {
            Self(Box::new(service))
        }
        pub(in super::super) async fn join(
            &self,
            name: &str,
            client: Arc<dyn LockClient>,
            _configure: impl FnOnce(&mut Config),
        ) -> Result<LockSpace, JoinError> {
            self.0.join(name, client).map(LockSpace)
        }
        pub(in super::super) async fn release(&self, _space: &LockSpace) {
            self.0.release();
        }
    }

    impl LockSpace {
        pub(in super::super) fn request(&self, request: LockRequest<'_>) -> Result<Progress, Refusal> {
            self.0.request(request)
        }
        /// Said at once: how messages are put together is not looked at there.
        pub(in super::super) fn request_unsaid(
            &self,
            request: LockRequest<'_>,
            _unsaid: &mut Unsaid,
        ) -> Result<Progress, Refusal> {
            self.0.request(request)
        }
        pub(in super::super) fn say(&self, _unsaid: Unsaid) {}
        pub(in super::super) fn convert(
            &self,
            lock: LockId,
            mode: Mode,
            flags: LockFlags,
            lvb: Option<Box<[u8]>>,
        ) -> Result<Progress, Refusal> {
            self.0.convert(lock, mode, flags, lvb)
        }
        pub(in super::super) fn unlock(
            &self,
            lock: LockId,
            flags: LockFlags,
            lvb: Option<Box<[u8]>>,
        ) -> Result<Progress, Refusal> {
            self.0.unlock(lock, flags, lvb)
        }
        pub(in super::super) fn cancel(&self, lock: LockId) -> Result<Progress, Refusal> {
            self.unlock(lock, LockFlags::CANCEL, None)
        }
        pub(in super::super) fn has_ended(&self) -> bool {
            self.0.has_ended()
        }
        /// Not looked at by a seed's tests.
        pub(in super::super) fn inspect(&self) -> SpaceView {
            SpaceView::default()
        }
        /// No node is stopped there and wakes later.
        pub(in super::super) fn is_trusted(&self) -> bool {
            !self.has_ended()
        }
        pub(in super::super) fn is_running(&self) -> bool {
            self.0.is_running()
        }
    }
}
