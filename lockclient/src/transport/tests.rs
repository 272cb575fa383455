use super::*;
use crate::wire;
use std::io::Read;
use std::io::Write;
use std::net::{TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdp};
use std::sync::Mutex;
use std::time::Instant;

const PEER: NodeId = NodeId(2);

/// Takes frames in and writes what a test has for the peer, as the node does.
#[derive(Default)]
struct Desk {
    heard: Mutex<Vec<Vec<u8>>>,
    rest: Mutex<Vec<u8>>,
    current: Mutex<Option<Connection>>,
}

impl Sink for Desk {
    fn frames(&self, _from: NodeId, frames: &[&[u8]]) {
        self.heard.lock().expect("list").extend(frames.iter().map(|frame| frame.to_vec()));
    }
    fn writable(&self, _to: NodeId, _connection: u64) -> bool {
        let mut rest = self.rest.lock().expect("bytes");
        while !rest.is_empty() {
            let current = self.current.lock().expect("connection").clone();
            let Some(stream) = current.and_then(|current| current.stream.upgrade()) else { return false };
            match stream.try_write(&rest) {
                Ok(written) => drop(rest.drain(..written)),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

struct Near {
    line: Line,
    desk: Arc<Desk>,
    _transport: Transport,
    events: Receiver<TransportEvent>,
    counters: Arc<Counters>,
}

impl Near {
    async fn open(local: &str, peer: SocketAddr) -> Near {
        let (lines, inboxes) = lines([PEER].into_iter());
        let counters = Arc::new(Counters::default());
        let local = local.parse().expect("address");
        let settings = Settings { local, peers: [(PEER, peer)].into(), tls: None, counters: counters.clone() };
        let desk = Arc::new(Desk::default());
        let (transport, events) =
            Transport::open(settings, &Handle::current(), inboxes, desk.clone()).await.expect("sockets");
        Near { line: lines[&PEER].clone(), desk, _transport: transport, events, counters }
    }

    async fn until_up(&mut self) -> u64 {
        loop {
            if let Some(TransportEvent::Up(_, connection)) = self.events.recv().await {
                let number = connection.number;
                *self.desk.current.lock().expect("connection") = Some(connection);
                return number;
            }
        }
    }

    fn send(&self, number: u64, bytes: &[u8]) {
        self.desk.rest.lock().expect("bytes").extend_from_slice(bytes);
        if self.desk.writable(PEER, number) {
            self.line.drain(number);
        }
    }
}

/// What the peer reads after a frame: the end of the stream, or an error.
fn end_of(mut stream: std::net::TcpStream, length: usize) -> io::Result<usize> {
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    stream.read(&mut frame)
}

/// Found beside a kernel: an end (FIN) went out before the reset, and the kernel forgot what we had not acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_reset_and_not_ended() {
    for _ in 0..20 {
        let listener = StdListener::bind("127.97.0.2:0").expect("socket");
        let address = listener.local_addr().expect("address");
        let mut near = Near::open("127.97.0.1:0", address).await;
        near.line.connect();
        let (stream, _) = listener.accept().expect("connection");
        let number = near.until_up().await;
        near.send(number, &[7; 100]);
        let end = std::thread::spawn(move || end_of(stream, 100));
        near.line.break_connection(None);
        let end = end.join().expect("thread").map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
        assert!(matches!(near.events.recv().await, Some(TransportEvent::Down(PEER))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_wanted_any_more_is_ended() {
    let listener = StdListener::bind("127.97.1.2:0").expect("socket");
    let address = listener.local_addr().expect("address");
    let mut near = Near::open("127.97.1.1:0", address).await;
    near.line.connect();
    let (stream, _) = listener.accept().expect("connection");
    let number = near.until_up().await;
    near.send(number, &[7; 100]);
    let end = std::thread::spawn(move || end_of(stream, 100));
    near.line.disconnect();
    assert_eq!(end.join().expect("thread").map_err(|error| error.kind()), Ok(0));
}

/// More than the socket takes at once, while the peer does not read: nothing is lost, nothing changes its order.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_socket_does_not_take_follows_in_order() {
    const MANY: u32 = 200_000;
    let listener = StdListener::bind("127.97.2.2:0").expect("socket");
    let address = listener.local_addr().expect("address");
    let mut near = Near::open("127.97.2.1:0", address).await;
    near.line.connect();
    let (mut stream, _) = listener.accept().expect("connection");
    let number = near.until_up().await;
    let reading = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let mut word = [0; 64];
        (0..MANY).all(|n| stream.read_exact(&mut word).is_ok() && word == [n.to_ne_bytes(); 16].concat()[..])
    });
    (0..MANY).for_each(|n| near.send(number, &[n.to_ne_bytes(); 16].concat()));
    assert!(reading.join().expect("thread"), "every word in its order");
}

/// A whole frame as that node would send it: an acknowledgement.
fn frame_of(node: u32) -> Vec<u8> {
    wire::encode_ack(NodeId(node), 7)
}

/// Until it holds, or for too long.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A connection to `to` from a chosen address.
async fn from(address: &str, to: SocketAddr) -> StdStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind(format!("{address}:0").parse().expect("address")).expect("bind");
    let stream = socket.connect(to).await.expect("connection").into_std().expect("stream");
    stream.set_nonblocking(false).expect("option");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("option");
    stream
}

/// The other end has gone, in whatever way.
fn is_closed(mut stream: StdStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0)) || {
        let error = stream.read(&mut [0; 16]).err().map(|error| error.kind());
        error.is_none_or(|kind| kind != io::ErrorKind::WouldBlock && kind != io::ErrorKind::TimedOut)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nowhere_and_are_counted() {
    let (own, peer) = ("127.97.3.1:21970", "127.97.3.2:21970");
    let near = Near::open(own, peer.parse().expect("address")).await;
    let to = own.parse().expect("address");
    let mut friend = from("127.97.3.2", to).await;
    friend.write_all(&frame_of(2)).expect("frame");
    until("the friend is heard", || near.desk.heard.lock().expect("list").len() == 1).await;
    for round in 1..=20u64 {
        // Another address; with TCP and UDP.
        let mut stranger = from("127.97.3.9", to).await;
        // It may be closed already.
        let _refused = stranger.write_all(&frame_of(2));
        assert!(is_closed(stranger));
        StdUdp::bind("127.97.3.9:0").expect("socket").send_to(&[1; 100], to).expect("datagram");
        until("counted", || near.counters.read().unknown_datagrams == round).await;
        // The peer's address: garbage, and frames in another node's name.
        for bytes in [&[0xff; 64][..], &frame_of(3)] {
            let mut stranger = from("127.97.3.2", to).await;
            stranger.write_all(bytes).expect("bytes");
            assert!(is_closed(stranger));
        }
        // The friend goes on meanwhile.
        friend.write_all(&frame_of(2)).expect("frame");
        until("the friend is heard", || near.desk.heard.lock().expect("list").len() as u64 == 1 + round).await;
    }
    let strangers = near.counters.read();
    assert_eq!((strangers.unknown_connections, strangers.bad_streams), (20, 40), "{strangers:?}");
    // Only the configured address is listened on.
    assert!(StdStream::connect("127.97.3.7:21970").is_err());
}

/// A flood of connections that say nothing, or half a frame, from the peer's own address.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_say_nothing_are_crowded_out_and_disturb_nobody() {
    let (own, peer) = ("127.97.4.1:21970", "127.97.4.2:21970");
    let near = Near::open(own, peer.parse().expect("address")).await;
    let to = own.parse().expect("address");
    let mut friend = from("127.97.4.2", to).await;
    friend.write_all(&frame_of(2)).expect("frame");
    until("the friend is heard", || near.desk.heard.lock().expect("list").len() == 1).await;
    let mut silent = Vec::new();
    for round in 0..200 {
        let mut stranger = from("127.97.4.2", to).await;
        stranger.write_all(&frame_of(2)[..round % 12]).expect("half a frame");
        silent.push(stranger);
    }
    until("the oldest are closed", || near.counters.read().crowded_out == 184).await;
    assert!(silent.drain(..184).all(is_closed));
    friend.write_all(&frame_of(2)).expect("frame");
    until("the friend is heard", || near.desk.heard.lock().expect("list").len() == 2).await;
    // A new connection that proves itself takes its place.
    let mut again = from("127.97.4.2", to).await;
    again.write_all(&frame_of(2)).expect("frame");
    until("the friend is heard", || near.desk.heard.lock().expect("list").len() == 3).await;
    assert!(is_closed(friend));
}

/// A peer that takes nothing more keeps nobody from giving it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_connection_can_be_ended() {
    let listener = StdListener::bind("127.97.5.2:0").expect("socket");
    let mut near = Near::open("127.97.5.1:0", listener.local_addr().expect("address")).await;
    for _ in 0..3 {
        near.line.connect();
        let (_stopped, _) = listener.accept().expect("connection");
        let number = near.until_up().await;
        near.send(number, &vec![7; 16 << 20]);
        near.line.disconnect();
        let down = tokio::time::timeout(Duration::from_secs(20), near.events.recv()).await;
        assert!(matches!(down, Ok(Some(TransportEvent::Down(PEER)))), "{down:?}");
        near.desk.rest.lock().expect("bytes").clear();
    }
}
