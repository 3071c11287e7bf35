// SPDX-License-Identifier: Apache-2.0
//! Packets out of nowhere: XDP live frames (`BPF_PROG_TEST_RUN`), and a sink for them.
//!
//! The programs are a few instructions, assembled here: the source writes the frame's bytes anew
//! each time, since the kernel recycles pages as the last run left them, and passes it to the
//! stack; the sink drops everything.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
pub(super) const XDP_DROP: i32 = 1;
pub(super) const XDP_PASS: i32 = 2;

/// Frames the kernel makes at once; its own default.
pub(super) const BATCH: u32 = 64;

/// Injects one frame over and over at a device.
#[derive(Debug)]
pub(super) struct Source {
    program: OwnedFd,
    ifindex: u32,
    frame: Vec<u8>,
    _link: Option<OwnedFd>,
}

/// Drops everything that arrives at a device.
#[derive(Debug)]
pub(super) struct Sink {
    _link: OwnedFd,
}

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as it is used.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 10],
}

/// `union bpf_attr` of `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `union bpf_attr` of `BPF_PROG_QUERY` of a device.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    rest: [u32; 9],
}

/// `union bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct AskInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_bytes: u32,
    translated_bytes: u32,
    skipped: [u64; 3],
    created_by: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The beginning of `struct __sk_buff`, of which a test run takes the mark and the device.
#[repr(C)]
#[derive(Default)]
struct SocketBuffer {
    len: u32,
    pkt_type: u32,
    mark: u32,
    skipped: [u32; 7],
    ifindex: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// `union bpf_attr` of `BPF_MAP_CREATE`, as far as it is used.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` of commands about one element.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A few words that a program and this one share: an array of one element.
#[derive(Debug)]
pub(super) struct Words<const N: usize> {
    fd: OwnedFd,
}

impl<const N: usize> Words<N> {
    pub(super) fn new() -> Result<Self> {
        let mut create = MapCreate {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: N as u32 * 8,
            max_entries: 1,
        };
        let fd = bpf(BPF_MAP_CREATE, &mut create).context("make a map")?;
        // SAFETY: a descriptor this call made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Self { fd })
    }

    pub(super) fn get(&self) -> Result<[u64; N]> {
        let mut words = [0; N];
        self.element(BPF_MAP_LOOKUP_ELEM, &mut words)?;
        Ok(words)
    }

    pub(super) fn set(&self, mut words: [u64; N]) -> Result<()> {
        self.element(BPF_MAP_UPDATE_ELEM, &mut words)
    }

    fn element(&self, command: libc::c_long, words: &mut [u64; N]) -> Result<()> {
        let key = 0_u32;
        let mut element = Element {
            map_fd: self.fd.as_raw_fd() as u32,
            padding: 0,
            key: (&raw const key) as u64,
            value: words.as_mut_ptr() as u64,
            flags: 0,
        };
        bpf(command, &mut element).context("read or write a map")?;
        Ok(())
    }

    /// Instructions that leave a pointer to the words in r0, or go so many instructions on when
    /// there is none. They use r1 to r5 and four bytes of the stack.
    pub(super) fn look_up(&self, or_skip: i16) -> [u64; 7] {
        [
            instruction(0x62, 10, 0, -4, 0), // *(u32 *)(r10 - 4) = 0
            instruction(0xbf, 2, 10, 0, 0),  // r2 = r10
            instruction(0x07, 2, 0, 0, -4),  // r2 += -4
            instruction(0x18, 1, 1, 0, self.fd.as_raw_fd()), // r1 = map
            0,
            instruction(0x85, 0, 0, 0, 1),       // bpf_map_lookup_elem
            instruction(0x15, 0, 0, or_skip, 0), // if r0 == 0 goto …
        ]
    }
}

impl Source {
    /// Loads the program for a frame and attaches it to the device it will be injected at.
    pub(super) fn attach(ifindex: u32, frame: Vec<u8>) -> Result<Self> {
        let mut source = Self::load(ifindex, frame)?;
        source._link = Some(attach(&source.program, ifindex)?);
        Ok(source)
    }

    /// Loads the program for a frame; another source is attached to the device already.
    pub(super) fn load(ifindex: u32, frame: Vec<u8>) -> Result<Self> {
        Ok(Self {
            program: load(&rewrite_and_pass(&frame))?,
            ifindex,
            frame,
            _link: None,
        })
    }

    /// A program assembled elsewhere that writes and passes frames like this one. It is not the one
    /// at the device, which lets what really arrives there be.
    pub(super) fn of(ifindex: u32, frame: Vec<u8>, program: &[u64]) -> Result<Self> {
        let pass = load(&[instruction(0xb7, 0, 0, 0, XDP_PASS), EXIT])?;
        Ok(Self {
            program: load(program)?,
            _link: Some(attach(&pass, ifindex)?),
            ifindex,
            frame,
        })
    }

    /// Injects so many; returns when all are through.
    pub(super) fn inject(&self, packets: u32) -> Result<()> {
        let length = self.frame.len() as u32;
        let context = Context {
            data_end: length,
            ingress_ifindex: self.ifindex,
            ..Context::default()
        };
        let mut run = TestRun {
            prog_fd: self.program.as_raw_fd() as u32,
            data_size_in: length,
            data_in: self.frame.as_ptr() as u64,
            repeat: packets,
            ctx_size_in: mem::size_of::<Context>() as u32,
            ctx_in: (&raw const context) as u64,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: BATCH,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut run).context("inject live frames")?;
        Ok(())
    }
}

impl Sink {
    /// Attaches to a device of the calling thread's namespace.
    pub(super) fn attach(device: &str) -> Result<Self> {
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let program = [instruction(0xb7, 0, 0, 0, XDP_DROP), EXIT];
        Self::of(ifindex, &program)
    }

    /// A program assembled elsewhere.
    pub(super) fn of(ifindex: u32, program: &[u64]) -> Result<Self> {
        let program = load(program)?;
        Ok(Self {
            _link: attach(&program, ifindex)?,
        })
    }
}

/// A program for packets that come in by a device, to be run alone.
#[derive(Debug)]
pub(super) struct Alone {
    program: OwnedFd,
    ifindex: u32,
    /// Bytes of its instructions as the kernel holds them.
    pub(super) translated_bytes: u32,
}

impl Alone {
    /// The one with this name at a device of the calling thread's namespace.
    pub(super) fn at(ifindex: u32, name: &str) -> Result<Self> {
        let mut ids = [0_u32; 16];
        let mut query = Query {
            target_ifindex: ifindex,
            attach_type: BPF_TCX_INGRESS,
            prog_ids: ids.as_mut_ptr() as u64,
            count: ids.len() as u32,
            ..Query::default()
        };
        bpf(BPF_PROG_QUERY, &mut query).context("ask for the programs of a device")?;
        for id in ids.iter().take(query.count as usize) {
            let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut [*id, 0, 0]).context("open a program")?;
            // SAFETY: a descriptor this call made, owned by nobody else.
            let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
            let mut info = ProgInfo::default();
            let mut ask = AskInfo {
                fd: program.as_raw_fd() as u32,
                info_len: mem::size_of::<ProgInfo>() as u32,
                info: (&raw mut info) as u64,
            };
            bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask).context("ask about a program")?;
            if info.name.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
                return Ok(Self {
                    program,
                    ifindex,
                    translated_bytes: info.translated_bytes,
                });
            }
        }
        bail!("there is no program {name} at the device")
    }

    /// One that does nothing.
    pub(super) fn nothing(ifindex: u32) -> Result<Self> {
        Ok(Self {
            program: load_as(
                BPF_PROG_TYPE_SCHED_CLS,
                &[instruction(0xb7, 0, 0, 0, -1), EXIT],
            )?,
            ifindex,
            translated_bytes: 16,
        })
    }

    /// Runs it once on a frame with this mark: nanoseconds, and what it returned.
    pub(super) fn run(&self, frame: &[u8], mark: u32) -> Result<(u32, i32)> {
        let context = SocketBuffer {
            mark,
            ifindex: self.ifindex,
            ..SocketBuffer::default()
        };
        let mut run = TestRun {
            prog_fd: self.program.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ctx_size_in: mem::size_of::<SocketBuffer>() as u32,
            ctx_in: (&raw const context) as u64,
            ..TestRun::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut run).context("run a program alone")?;
        Ok((run.duration, run.retval as i32))
    }
}

pub(super) const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// One eBPF instruction, as the kernel lays it out (RFC 9669 §3).
pub(super) const fn instruction(
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
) -> u64 {
    code as u64
        | ((source << 4 | destination) as u64) << 8
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

fn rewrite_and_pass(frame: &[u8]) -> Vec<u64> {
    let words: Vec<i32> = frame
        .chunks_exact(4)
        .map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let mut program = vec![
        instruction(0x61, 2, 1, 0, 0),                      // r2 = data
        instruction(0x61, 3, 1, 4, 0),                      // r3 = data_end
        instruction(0xbf, 4, 2, 0, 0),                      // r4 = r2
        instruction(0x07, 4, 0, 0, frame.len() as i32),     // r4 += length
        instruction(0x2d, 4, 3, words.len() as i16 + 2, 0), // if r4 > r3 goto drop
    ];
    for (index, word) in words.iter().enumerate() {
        program.push(instruction(0x62, 2, 0, index as i16 * 4, *word)); // *(u32 *)(r2 + …) = word
    }
    program.push(instruction(0xb7, 0, 0, 0, XDP_PASS));
    program.push(EXIT);
    program.push(instruction(0xb7, 0, 0, 0, XDP_DROP));
    program.push(EXIT);
    program
}

fn load(program: &[u64]) -> Result<OwnedFd> {
    load_as(BPF_PROG_TYPE_XDP, program)
}

fn load_as(prog_type: u32, program: &[u64]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut load = ProgLoad {
        prog_type,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 10],
    };
    let fd = bpf(BPF_PROG_LOAD, &mut load).context("load a program")?;
    // SAFETY: a descriptor this call made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach(program: &OwnedFd, ifindex: u32) -> Result<OwnedFd> {
    attach_as(BPF_XDP, 0, program, ifindex)
}

/// Gives every packet that comes in by a device a mark, before other programs see it.
pub(super) fn mark(ifindex: u32, mark: u32) -> Result<OwnedFd> {
    const MARK_AT: i16 = 8;
    let program = [
        instruction(0xb7, 2, 0, 0, mark as i32),
        instruction(0x63, 1, 2, MARK_AT, 0),
        instruction(0xb7, 0, 0, 0, -1),
        EXIT,
    ];
    first_at(ifindex, &program)
}

/// Attaches a program in front of all others for what comes in by a device.
pub(super) fn first_at(ifindex: u32, program: &[u64]) -> Result<OwnedFd> {
    let program = load_as(BPF_PROG_TYPE_SCHED_CLS, program)?;
    attach_as(BPF_TCX_INGRESS, BPF_F_BEFORE, &program, ifindex)
}

fn attach_as(attach_type: u32, flags: u32, program: &OwnedFd, ifindex: u32) -> Result<OwnedFd> {
    let mut create = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type,
        flags,
    };
    let fd = bpf(BPF_LINK_CREATE, &mut create).context("attach a program")?;
    // SAFETY: a descriptor this call made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: pointer and size describe a live value of the command's shape, and every pointer
    // inside it is live for the call.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attributes,
            mem::size_of::<T>(),
        )
    };
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(code)
    }
}
