//! Those who take all they can get.

use super::*;

#[tokio::test]
async fn silent_sockets_of_one_network_leave_room_for_the_others() {
    let media = Running::start_with(|config| {
        config.listen = "0.0.0.0:0".parse().unwrap();
        config.public_base = Some("http://127.0.0.1".to_owned());
        (config.max_connections, config.max_connections_per_network) = (5, 3);
    })
    .await;
    let address = SocketAddr::from(([127, 0, 0, 1], media.address.port()));
    let from = |network| async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, network, 1], 0))).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(from(7).await);
    }
    for _ in 0..20 {
        assert!(!is_answered(&mut from(7).await).await, "the network is full");
    }
    let (mut second, mut third) = (from(8).await, from(9).await);
    assert!(is_answered(&mut second).await && is_answered(&mut third).await);
    assert!(!is_answered(&mut from(10).await).await, "all is full");
    drop(second);
    let comes_back = async { while !is_answered(&mut from(10).await).await {} };
    tokio::time::timeout(Duration::from_secs(4), comes_back).await.expect("a place that is left is free again");
}

/// True if the server says anything to a request; false when it has closed, which it must do before it would give up
/// on a silent socket.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let _refused = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let read = tokio::time::timeout(Duration::from_secs(4), async { stream.read(&mut [0; 9]).await });
    matches!(read.await.expect("answered or closed at once"), Ok(1..))
}
