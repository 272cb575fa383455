use super::*;
use std::io::Read;
use std::net::TcpListener as StdListener;

const PEER: NodeId = NodeId(2);

fn peers(address: SocketAddr) -> BTreeMap<NodeId, SocketAddr> {
    [(PEER, address)].into()
}

async fn until_up(transport: &mut Transport, events: &mut Receiver<TransportEvent>) {
    loop {
        if let Some(TransportEvent::Up(node, connection)) = events.recv().await {
            return transport.begin(node, connection);
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
        let local = "127.97.0.1:0".parse().expect("address");
        let (mut transport, mut events) = Transport::open(local, peers(address)).await.expect("sockets");
        transport.connect(PEER);
        let (stream, _) = listener.accept().expect("connection");
        until_up(&mut transport, &mut events).await;
        transport.send(PEER, vec![7; 100]);
        let end = std::thread::spawn(move || end_of(stream, 100));
        transport.break_connection(PEER);
        let end = end.join().expect("thread").map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
        assert!(matches!(events.recv().await, Some(TransportEvent::Down(PEER))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_wanted_any_more_is_ended() {
    let listener = StdListener::bind("127.97.1.2:0").expect("socket");
    let address = listener.local_addr().expect("address");
    let (mut transport, mut events) =
        Transport::open("127.97.1.1:0".parse().expect("address"), peers(address)).await.expect("sockets");
    transport.connect(PEER);
    let (stream, _) = listener.accept().expect("connection");
    until_up(&mut transport, &mut events).await;
    transport.send(PEER, vec![7; 100]);
    let end = std::thread::spawn(move || end_of(stream, 100));
    transport.disconnect(PEER);
    assert_eq!(end.join().expect("thread").map_err(|error| error.kind()), Ok(0));
}

/// More than the socket takes at once, while the peer does not read: nothing is lost, nothing changes its order.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_socket_does_not_take_follows_in_order() {
    const MANY: u32 = 200_000;
    let listener = StdListener::bind("127.97.2.2:0").expect("socket");
    let address = listener.local_addr().expect("address");
    let (mut transport, mut events) =
        Transport::open("127.97.2.1:0".parse().expect("address"), peers(address)).await.expect("sockets");
    transport.connect(PEER);
    let (mut stream, _) = listener.accept().expect("connection");
    until_up(&mut transport, &mut events).await;
    let reading = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let mut word = [0; 64];
        (0..MANY).all(|n| stream.read_exact(&mut word).is_ok() && word == [n.to_ne_bytes(); 16].concat()[..])
    });
    (0..MANY).for_each(|n| transport.send(PEER, [n.to_ne_bytes(); 16].concat()));
    assert!(reading.join().expect("thread"), "every word in its order");
}
