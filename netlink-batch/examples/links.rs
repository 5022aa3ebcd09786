//! Lists the network interfaces, as `ip -brief link` does, then follows what changes until it is
//! interrupted if `--follow` is given. Needs no privilege.
//!
//! ```text
//! cargo run --example links -- --follow
//! ```

use std::error::Error;

use netlink_batch::{Batch, Failure, Malformed, Message, Notifications, Options, Socket};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::event::{poll, PollFd, PollFlags};

// linux/rtnetlink.h, linux/if_link.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTNLGRP_LINK: u32 = 1;
const IFLA_IFNAME: u16 = 3;
/// Bytes of `struct ifinfomsg`; the index is in the second four.
const HEADER: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    // Follow first, then list: no change between the two is missed.
    let mut changes = Notifications::open(NETLINK_ROUTE, &[RTNLGRP_LINK])?;
    let mut socket = Socket::open(NETLINK_ROUTE, &Options::default())?;
    let all = |batch: &mut Batch| batch.push(RTM_GETLINK, 0, |out| out.extend([0; HEADER]));
    let links = socket.dump(all, |links: &mut Vec<(u32, String)>, message| {
        links.push(link(message)?);
        Ok(())
    })?;
    for (index, name) in links {
        println!("{index} {name}");
    }
    if std::env::args().nth(1).as_deref() != Some("--follow") {
        return Ok(());
    }
    loop {
        poll(&mut [PollFd::new(&changes, PollFlags::IN)], None)?;
        match changes.receive(report) {
            Err(Failure::Lost(_)) => println!("changes were lost"),
            result => drop(result?),
        }
    }
}

fn report(message: Result<Message<'_>, Malformed>) {
    let change = message.and_then(|message| Ok((message.kind, link(&message)?)));
    match change {
        Ok((RTM_NEWLINK, (index, name))) => println!("{index} {name} came or changed"),
        Ok((RTM_DELLINK, (index, name))) => println!("{index} {name} went"),
        Ok(_) => {}
        Err(malformed) => println!("{malformed}"),
    }
}

fn link(message: &Message<'_>) -> Result<(u32, String), Malformed> {
    let index = message.payload.get(4..).and_then(|rest| rest.first_chunk());
    let index = u32::from_ne_bytes(*index.ok_or(Malformed("link"))?);
    let name = message.attributes(HEADER)?.find(IFLA_IFNAME)?;
    Ok((index, name.ok_or(Malformed("link without name"))?.text()?.to_owned()))
}
