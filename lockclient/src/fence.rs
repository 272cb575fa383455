//! Making sure that a node cannot write any more: runs a program of the FenceAgentAPI (dlm.md 4.10.4). It gets its
//! options line by line on its standard input, `key=value`, and exits with 0 once the node is off.

use crate::ids::NodeId;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How to fence one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceDevice {
    /// The program. `none` does nothing and reports success: data is at risk.
    pub agent: String,
    /// Its options.
    pub options: Vec<(String, String)>,
}

/// An agent that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the agent; true if it says that the node is off. `fail_time` is seconds since 1970.
pub async fn fence(device: &FenceDevice, node: NodeId, fail_time: u64) -> bool {
    if device.agent == "none" {
        tracing::warn!(%node, "not fenced: the agent is 'none', the data is at risk");
        return true;
    }
    match tokio::time::timeout(LIMIT, run(device, node, fail_time)).await {
        Ok(Ok(success)) => {
            tracing::info!(%node, agent = device.agent, success, "fence agent finished");
            success
        }
        Ok(Err(error)) => {
            tracing::error!(%node, agent = device.agent, %error, "fence agent could not be run");
            false
        }
        Err(_) => {
            tracing::error!(%node, agent = device.agent, "fence agent took too long");
            false
        }
    }
}

async fn run(device: &FenceDevice, node: NodeId, fail_time: u64) -> std::io::Result<bool> {
    let mut child = Command::new(&device.agent)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        let mut text: String = device.options.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        text += &format!("node={node}\nfail_time={fail_time}\n");
        // An agent that does not read its options may have exited; its status tells.
        if let Err(error) = input.write_all(text.as_bytes()).await {
            tracing::debug!(%error, "fence agent does not read its options");
        }
    }
    Ok(child.wait().await?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_exit_status_decides() {
        let device = |agent: &str| FenceDevice { agent: agent.into(), options: vec![("port".into(), "7".into())] };
        assert!(fence(&device("true"), NodeId(1), 0).await);
        assert!(!fence(&device("false"), NodeId(1), 0).await);
        assert!(!fence(&device("/nonexistent/agent"), NodeId(1), 0).await);
        assert!(fence(&device("none"), NodeId(1), 0).await);
    }
}
