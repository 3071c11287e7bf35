// SPDX-License-Identifier: Apache-2.0
//! A neighbour made of a TCP connection and the codec, which can misbehave.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp_wire::{
    AsPath, Capability, FamilyContext, MessageKind, NlriEntry, Notification, Open, Origin,
    PathAttributes, PathNextHop, announce, frame,
};
use ipnet::IpNet;
use router_types::{Asn, Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::node::{LIMIT, next_hop, pause};

/// A message as it came: its kind and its body.
pub(crate) type Received = (MessageKind, Vec<u8>);

/// A neighbour's end of a connection.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    /// Calls a speaker from an address.
    pub(crate) async fn call(from: IpAddr, to: SocketAddr) -> Raw {
        Raw::try_call(from, to).await.expect("a connection")
    }

    pub(crate) async fn try_call(from: IpAddr, to: SocketAddr) -> std::io::Result<Raw> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        Ok(Raw::on(stream))
    }

    fn on(stream: TcpStream) -> Raw {
        Raw {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    pub(crate) async fn keepalive(&mut self) {
        self.send(&keepalive()).await;
    }

    /// The next message; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        tokio::time::timeout(LIMIT, self.read())
            .await
            .expect("a message in time")
    }

    async fn read(&mut self) -> Option<Received> {
        loop {
            if let Some(message) = frame::next(&self.unread, frame::MAX_EXTENDED_LEN).unwrap() {
                let received = (message.kind, message.body.to_vec());
                let len = message.len;
                self.unread.drain(..len);
                return Some(received);
            }
            match self.stream.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads on until there is a NOTIFICATION; `None` when the connection ends without.
    pub(crate) async fn notification(&mut self) -> Option<Notification> {
        loop {
            match self.next().await? {
                (MessageKind::Notification, body) => return Notification::decode(&body),
                _ => continue,
            }
        }
    }

    /// Brings a session up from this side: OPEN and KEEPALIVE both ways.
    pub(crate) async fn establish(&mut self, asn: u32, hold_s: u16) {
        self.send(&open(asn, hold_s)).await;
        self.establish_rest().await;
    }

    /// What is left to do once OPEN was sent.
    pub(crate) async fn establish_rest(&mut self) {
        let (kind, _) = self.next().await.expect("an OPEN");
        assert_eq!(kind, MessageKind::Open);
        let (kind, body) = self.next().await.expect("a KEEPALIVE");
        assert_eq!(kind, MessageKind::Keepalive, "{body:?}");
        self.keepalive().await;
    }

    /// Sends keepalives and reads what comes, until dropped or the connection ends.
    pub(crate) async fn live(mut self) -> Self {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if self.stream.write_all(&keepalive()).await.is_err() {
                        return self;
                    }
                }
                message = self.read() => if message.is_none() { return self; }
            }
        }
    }
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode_keepalive(&mut bytes);
    bytes
}

pub(crate) fn open(asn: u32, hold_s: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    Open {
        asn: Asn(asn),
        hold_time_s: hold_s,
        router_id: Ipv4Addr::from(0x0a00_0000 | (asn & 0xffff)),
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::Multiprotocol(Family::IPV6_UNICAST),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(asn)),
        ],
    }
    .encode(&mut bytes);
    bytes
}

/// The attributes of a plain external route.
pub(crate) fn attributes(asn: u32) -> PathAttributes {
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence([Asn(asn)])),
        ..PathAttributes::default()
    }
}

/// UPDATE messages of a neighbour at an address that announce IPv4 prefixes.
pub(crate) fn update(attributes: &PathAttributes, from: IpAddr, prefixes: &[IpNet]) -> Vec<u8> {
    let mut encoded = Vec::new();
    attributes.encode(true, &mut encoded);
    let entries = prefixes.iter().map(|prefix| NlriEntry {
        path_id: None,
        prefix: *prefix,
    });
    let mut bytes = Vec::new();
    announce(
        &mut bytes,
        &FamilyContext::plain(Family::IPV4_UNICAST),
        frame::MAX_LEN,
        &encoded,
        PathNextHop::V4(next_hop(from)),
        entries,
    )
    .expect("it fits");
    bytes
}

/// Calls until the speaker takes the call and answers with an OPEN: it refuses while it pauses
/// after an error.
pub(crate) async fn call_until_open(from: IpAddr, to: SocketAddr) -> Raw {
    let limit = std::time::Instant::now() + LIMIT;
    loop {
        let mut raw = Raw::call(from, to).await;
        match raw.next().await {
            Some((MessageKind::Open, body)) => {
                // As if it had not been read.
                let mut again = vec![0xff; 16];
                again.extend_from_slice(&((body.len() + 19) as u16).to_be_bytes());
                again.push(1);
                again.extend_from_slice(&body);
                again.append(&mut raw.unread);
                raw.unread = again;
                return raw;
            }
            _ => assert!(std::time::Instant::now() < limit, "never taken"),
        }
        pause().await;
    }
}
