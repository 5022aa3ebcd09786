//! A filter that refuses what the container runtimes' default profile (`RuntimeDefault`) refuses to a
//! container whose capabilities unlock none of it.

use std::collections::HashMap;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde_json::{Value, json};

/// System calls that the profile of containerd and CRI-O does not let through, by their manuals.
const REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
];

/// Flags of `clone` that make namespaces (`linux/sched.h`): refused too. `clone3` hides its flags, so
/// the profile says that there is no such call, and programs fall back to `clone`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The filters, as `bwrap --add-seccomp-fd` takes them.
pub(crate) fn filters() -> Vec<Vec<u8>> {
    let architecture: TargetArch = std::env::consts::ARCH.try_into().unwrap();
    let refused: Vec<Value> = REFUSED.iter().map(|name| json!({ "syscall": name })).collect();
    let flags = (0..32).map(|bit| 1_u64 << bit).filter(|flag| flag & NEW_NAMESPACES != 0);
    let clones = flags.map(|flag| {
        let has = json!({"index": 0, "type": "qword", "op": {"masked_eq": flag}, "val": flag});
        json!({"syscall": "clone", "args": [has]})
    });
    let no_permission: Vec<Value> = refused.into_iter().chain(clones).collect();
    let no_such_call = vec![json!({"syscall": "clone3"})];
    let compile = |errno: rustix::io::Errno, rules: Vec<Value>| {
        let filter = json!({"main": {
            "mismatch_action": "allow",
            "match_action": {"errno": errno.raw_os_error()},
            "filter": rules,
        }});
        let text = filter.to_string();
        let mut programs: HashMap<String, BpfProgram> =
            compile_from_json(text.as_bytes(), architecture).unwrap();
        bytes(&programs.remove("main").unwrap())
    };
    vec![
        compile(rustix::io::Errno::PERM, no_permission),
        compile(rustix::io::Errno::NOSYS, no_such_call),
    ]
}

/// `struct sock_filter[]` as the kernel has it.
fn bytes(program: &BpfProgram) -> Vec<u8> {
    let mut out = Vec::new();
    for instruction in program {
        out.extend(instruction.code.to_ne_bytes());
        out.extend([instruction.jt, instruction.jf]);
        out.extend(instruction.k.to_ne_bytes());
    }
    out
}
