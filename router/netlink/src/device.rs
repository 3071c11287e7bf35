// SPDX-License-Identifier: Apache-2.0
//! Devices this daemon owns: made where they are missing, changed where they differ, and left alone
//! where they are somebody else's.
//!
//! Whose a device is its alias says. The kernel takes no alias in the request that makes a device,
//! so one of the right kind that has none and is down was left half made, by a daemon that died in
//! between, and is taken for ours.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use router_types::LinkIndex;

use crate::error::{Error, Problem};
use crate::link::{self, Link, LinkChange, LinkKind, MacAddress, TunnelKind, TunnelOptions};
use crate::netlink::{Netlink, check_name};

/// A tunnel's device in collect-metadata mode (`ip link add .. type vxlan external`): one device for
/// all other ends, each packet brings its network identifier and addresses along. It learns nothing
/// from packets, and takes those over IPv6 without a UDP checksum (RFC 6935, RFC 6936).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewTunnel<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// Whose it is: its alias, up to 255 bytes.
    pub alias: &'a str,
    /// What it speaks.
    pub kind: TunnelKind,
    /// UDP port it listens on and sends to.
    pub port: u16,
    /// Hardware address.
    pub mac: MacAddress,
    /// Largest packet inside, in bytes: 68 to 65535.
    pub mtu: u32,
}

/// A device that passes nothing on and only holds addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewHolder<'a> {
    /// Name, at most 15 bytes.
    pub name: &'a str,
    /// Whose it is: its alias, up to 255 bytes.
    pub alias: &'a str,
}

/// A device that is as it was asked for, but for being up: that is the caller's, after the settings
/// which must be in force before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ensured {
    /// The device.
    pub link: Link,
    /// What had to be done.
    pub done: Done,
}

/// What had to be done to have a device as it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// It was so.
    Nothing,
    /// It was ours and differed.
    Changed,
    /// It was ours and differed in what cannot be changed: it has another index.
    Remade,
    /// There was none.
    Created,
}

impl Netlink {
    /// Makes a tunnel's device, down, and returns it.
    ///
    /// # Errors
    ///
    /// [`Problem::NoDriver`]; [`Error::is_exists`] when the name, or on this port the mode, is taken.
    pub fn create_tunnel(&mut self, new: &NewTunnel<'_>) -> Result<Link, Error> {
        check_name(new.name)
            .and_then(|()| {
                self.socket.request(
                    RouteNetlinkMessage::NewLink(link::tunnel_message(
                        new.name,
                        new.mac,
                        new.mtu,
                        options(new),
                    )),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            })
            .map_err(|problem| match problem {
                Problem::Refused {
                    errno: Errno::EOPNOTSUPP,
                    ..
                } => Problem::NoDriver(new.kind),
                other => other,
            })
            .map_err(|p| Error::new(format!("create tunnel {}", new.name), p))?;
        self.link_by_name(new.name)
    }

    /// Makes a tunnel's device as it should be: creates it, changes what differs, makes it again where
    /// what it speaks, the port or the mode differs, which the kernel does not change. A new one is
    /// down: see [`Netlink::set_tunnel_up`].
    ///
    /// # Errors
    ///
    /// [`Error::is_foreign`] when a device of the name is somebody else's, [`Problem::PortTaken`],
    /// [`Problem::NoDriver`]: one that was there and speaks otherwise is gone then.
    pub fn ensure_tunnel(&mut self, wanted: &NewTunnel<'_>) -> Result<Ensured, Error> {
        let options = options(wanted);
        let (name, alias) = (wanted.name, wanted.alias);
        let mut done = Done::Created;
        if let Some(found) = self.own_link(name, alias, |l| l.tunnel.is_some())? {
            if found.tunnel == Some(options) {
                let change = LinkChange {
                    mtu: (found.mtu != wanted.mtu).then_some(wanted.mtu),
                    mac: (found.mac != Some(wanted.mac)).then_some(wanted.mac),
                    alias: (found.alias.as_deref() != Some(alias)).then_some(alias),
                    ..LinkChange::default()
                };
                if change.mtu.is_none() && change.mac.is_none() && change.alias.is_none() {
                    return Ok(Ensured {
                        link: found,
                        done: Done::Nothing,
                    });
                }
                self.change_link(found.index, &change)?;
                return Ok(Ensured {
                    link: self.link_by_index(found.index)?,
                    done: Done::Changed,
                });
            }
            self.delete_link(found.index)?;
            done = Done::Remade;
        }
        let created = match self.create_tunnel(wanted) {
            Ok(link) => link,
            Err(error) => return Err(self.blame_port(error, wanted)),
        };
        self.set_alias(created.index, alias)?;
        Ok(Ensured {
            link: self.link_by_index(created.index)?,
            done,
        })
    }

    /// Sets a tunnel device up: only then does the kernel open its UDP port.
    ///
    /// # Errors
    ///
    /// [`Problem::PortTaken`] when another device or process has the port.
    pub fn set_tunnel_up(&mut self, index: LinkIndex, tunnel: &NewTunnel<'_>) -> Result<(), Error> {
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        match self.change_link(index, &up) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.blame_port(error, tunnel)),
        }
    }

    /// Makes a device that holds addresses: a dummy, or on kernels without that driver a bridge
    /// without ports, which is as silent. A new one is down.
    ///
    /// # Errors
    ///
    /// [`Error::is_foreign`] when a device of the name is somebody else's.
    pub fn ensure_holder(&mut self, wanted: &NewHolder<'_>) -> Result<Ensured, Error> {
        let is_holder = |l: &Link| matches!(l.kind.as_deref(), Some("dummy" | "bridge"));
        let (created, done) = match self.own_link(wanted.name, wanted.alias, is_holder)? {
            Some(found) if found.alias.as_deref() == Some(wanted.alias) => {
                return Ok(Ensured {
                    link: found,
                    done: Done::Nothing,
                });
            }
            Some(found) => (found, Done::Changed),
            None => {
                let made = match self.create_link(wanted.name, LinkKind::Dummy) {
                    Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                        self.create_link(wanted.name, LinkKind::Bridge)?
                    }
                    other => other?,
                };
                (made, Done::Created)
            }
        };
        self.set_alias(created.index, wanted.alias)?;
        Ok(Ensured {
            link: self.link_by_index(created.index)?,
            done,
        })
    }

    /// Deletes a device of ours; returns whether there was one. One of that name that is somebody
    /// else's stays.
    pub fn delete_own_link(&mut self, name: &str, alias: &str) -> Result<bool, Error> {
        let link = match self.link_by_name(name) {
            Ok(link) if link.alias.as_deref() == Some(alias) => link,
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        match self.delete_link(link.index) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn own_link(
        &mut self,
        name: &str,
        alias: &str,
        is_right_kind: impl Fn(&Link) -> bool,
    ) -> Result<Option<Link>, Error> {
        let link = match self.link_by_name(name) {
            Ok(link) => link,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_ours = match link.alias.as_deref() {
            Some(found) => found == alias,
            None => !link.up,
        };
        if is_ours && is_right_kind(&link) {
            return Ok(Some(link));
        }
        Err(Error::new(
            format!("use device {name}"),
            Problem::Foreign {
                kind: link.kind,
                alias: link.alias,
            },
        ))
    }

    fn set_alias(&mut self, index: LinkIndex, alias: &str) -> Result<(), Error> {
        let change = LinkChange {
            alias: Some(alias),
            ..LinkChange::default()
        };
        self.change_link(index, &change)
    }

    /// Where the kernel's refusal means that the port is taken, an error that says by whom.
    fn blame_port(&mut self, error: Error, tunnel: &NewTunnel<'_>) -> Error {
        // What Geneve says where a port has another one: EBUSY, or if that has a number of its own EPERM,
        // as to whoever lacks the capability.
        let is_geneve = tunnel.kind == TunnelKind::Geneve;
        let is_unclear = is_geneve && matches!(error.errno(), Some(Errno::EBUSY | Errno::EPERM));
        if !is_unclear && !matches!(error.errno(), Some(Errno::EEXIST | Errno::EADDRINUSE)) {
            return error;
        }
        let links = match self.links() {
            Ok(links) => links,
            Err(listing) => {
                tracing::debug!(error = %listing, "who has the port is not known");
                Vec::new()
            }
        };
        // A tunnel made meanwhile by somebody else has the name, not the port.
        if links.iter().any(|l| l.name == tunnel.name) && error.is_exists() {
            return error;
        }
        let holder = links.into_iter().find(|l| {
            l.name != tunnel.name && l.tunnel.is_some_and(|options| options.port == tunnel.port)
        });
        if is_unclear && holder.is_none() {
            return error;
        }
        Error::new(
            format!("use UDP port {} for tunnel {}", tunnel.port, tunnel.name),
            Problem::PortTaken {
                device: holder.map(|l| l.name),
            },
        )
    }
}

fn options(new: &NewTunnel<'_>) -> TunnelOptions {
    TunnelOptions {
        kind: new.kind,
        port: new.port,
        external: true,
        learning: false,
        zero_checksum6_received: true,
    }
}
