//! The numbers of nftables over nfnetlink, in one table.
//!
//! Source of all of them: `include/uapi/linux/netfilter/nf_tables.h`, names without the prefix
//! `NFTA_` or `NFT_`; in modules by enum. Numbers are in network byte order, unless something else
//! is said. Those of userdata are `nft`'s, as captured from version 1.0.6.

/// `NFNL_SUBSYS_NFTABLES`
pub(crate) const SUBSYSTEM: u8 = 10;
/// `NFNLGRP_NFTABLES`
pub(crate) const GROUP: u32 = 7;

/// `NFT_MSG_*`
pub(crate) mod cmd {
    pub(crate) const NEW_TABLE: u8 = 0;
    pub(crate) const GET_TABLE: u8 = 1;
    pub(crate) const DEL_TABLE: u8 = 2;
    pub(crate) const NEW_CHAIN: u8 = 3;
    pub(crate) const GET_CHAIN: u8 = 4;
    pub(crate) const DEL_CHAIN: u8 = 5;
    pub(crate) const NEW_RULE: u8 = 6;
    pub(crate) const GET_RULE: u8 = 7;
    pub(crate) const DEL_RULE: u8 = 8;
    pub(crate) const NEW_SET: u8 = 9;
    pub(crate) const GET_SET: u8 = 10;
    pub(crate) const DEL_SET: u8 = 11;
    pub(crate) const NEW_SETELEM: u8 = 12;
    pub(crate) const GET_SETELEM: u8 = 13;
    pub(crate) const DEL_SETELEM: u8 = 14;
    pub(crate) const NEW_GEN: u8 = 15;
    pub(crate) const GET_GEN: u8 = 16;
    pub(crate) const NEW_OBJ: u8 = 18;
    pub(crate) const DEL_OBJ: u8 = 20;
    pub(crate) const NEW_FLOWTABLE: u8 = 22;
    pub(crate) const DEL_FLOWTABLE: u8 = 24;
    /// These five since Linux 6.3: as deleting, but not refused if it is not there.
    pub(crate) const DESTROY_TABLE: u8 = 26;
    pub(crate) const DESTROY_CHAIN: u8 = 27;
    pub(crate) const DESTROY_RULE: u8 = 28;
    pub(crate) const DESTROY_SET: u8 = 29;
    pub(crate) const DESTROY_SETELEM: u8 = 30;
}

/// The name of the table: the first attribute of every object.
pub(crate) const OF_TABLE: u16 = 1;
/// `NFTA_LIST_ELEM`
pub(crate) const LIST_ELEM: u16 = 1;

/// `NFTA_TABLE_*`
pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const HANDLE: u16 = 4;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const OWNER: u16 = 7;
}

/// `NFTA_CHAIN_*`
pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const HANDLE: u16 = 2;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const USERDATA: u16 = 12;
}

/// `NFTA_HOOK_*`
pub(crate) mod hook {
    pub(crate) const HOOKNUM: u16 = 1;
    /// Signed.
    pub(crate) const PRIORITY: u16 = 2;
}

/// `NFTA_RULE_*`
pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const HANDLE: u16 = 3;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const POSITION: u16 = 6;
    pub(crate) const USERDATA: u16 = 7;
}

/// `NFTA_SET_*`
pub(crate) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LEN: u16 = 7;
    pub(crate) const DESC: u16 = 9;
    pub(crate) const ID: u16 = 10;
    /// Milliseconds.
    pub(crate) const TIMEOUT: u16 = 11;
    pub(crate) const USERDATA: u16 = 13;
    pub(crate) const OBJ_TYPE: u16 = 15;
    pub(crate) const HANDLE: u16 = 16;

    /// `NFT_SET_INTERVAL` and others that follow from types.
    pub(crate) const MAP_FLAG: u32 = 0x8;
    pub(crate) const CONCAT_FLAG: u32 = 0x80;
    /// `NFT_DATA_VERDICT`
    pub(crate) const VERDICT_TYPE: u32 = 0xffff_ff00;
}

/// `NFTA_SET_DESC_*` and `NFTA_SET_FIELD_*`
pub(crate) mod desc {
    pub(crate) const SIZE: u16 = 1;
    pub(crate) const CONCAT: u16 = 2;
    /// Bytes, although the header says bits.
    pub(crate) const FIELD_LEN: u16 = 1;
}

/// `NFTA_SET_ELEM_LIST_*`
pub(crate) mod elements {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const SET: u16 = 2;
    pub(crate) const ELEMENTS: u16 = 3;
}

/// `NFTA_SET_ELEM_*`
pub(crate) mod element {
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    /// Milliseconds.
    pub(crate) const TIMEOUT: u16 = 4;
    /// Milliseconds.
    pub(crate) const EXPIRATION: u16 = 5;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const KEY_END: u16 = 10;

    /// `NFT_SET_ELEM_*`
    pub(crate) const INTERVAL_END: u32 = 1;
    pub(crate) const CATCHALL: u32 = 2;
}

/// `NFTA_DATA_*` and `NFTA_VERDICT_*`
pub(crate) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const CODE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
}

/// `NFTA_GEN_*`
pub(crate) mod generation {
    pub(crate) const ID: u16 = 1;
    pub(crate) const PROC_PID: u16 = 2;
    pub(crate) const PROC_NAME: u16 = 3;
}

/// Userdata of `nft`: the type of what follows.
pub(crate) mod userdata {
    /// Of everything but sets.
    pub(crate) const COMMENT: u8 = 0;
    pub(crate) const SET_KEY_BYTEORDER: u8 = 0;
    pub(crate) const SET_DATA_BYTEORDER: u8 = 1;
    pub(crate) const SET_COMMENT: u8 = 7;

    /// Values of the two byte orders, in the byte order of this machine.
    pub(crate) const NO_ORDER: u32 = 0;
    pub(crate) const HOST_ORDER: u32 = 1;
    pub(crate) const NETWORK_ORDER: u32 = 2;
}

/// `NFTA_EXPR_*` and the attributes of each kind of expression.
pub(crate) mod expr {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const DATA: u16 = 2;

    pub(crate) mod meta {
        pub(crate) const DREG: u16 = 1;
        pub(crate) const KEY: u16 = 2;
        pub(crate) const SREG: u16 = 3;
    }
    pub(crate) mod payload {
        pub(crate) const DREG: u16 = 1;
        pub(crate) const BASE: u16 = 2;
        pub(crate) const OFFSET: u16 = 3;
        pub(crate) const LEN: u16 = 4;
    }
    pub(crate) mod cmp {
        pub(crate) const SREG: u16 = 1;
        pub(crate) const OP: u16 = 2;
        pub(crate) const DATA: u16 = 3;
    }
    pub(crate) mod bitwise {
        pub(crate) const SREG: u16 = 1;
        pub(crate) const DREG: u16 = 2;
        pub(crate) const LEN: u16 = 3;
        pub(crate) const MASK: u16 = 4;
        pub(crate) const XOR: u16 = 5;
        pub(crate) const OP: u16 = 6;
    }
    pub(crate) mod lookup {
        pub(crate) const SET: u16 = 1;
        pub(crate) const SREG: u16 = 2;
        pub(crate) const DREG: u16 = 3;
        pub(crate) const FLAGS: u16 = 5;
        /// `NFT_LOOKUP_F_INV`
        pub(crate) const INVERTED: u32 = 1;
    }
    pub(crate) mod ct {
        pub(crate) const DREG: u16 = 1;
        pub(crate) const KEY: u16 = 2;
        /// One byte.
        pub(crate) const DIRECTION: u16 = 3;
        pub(crate) const SREG: u16 = 4;
    }
    pub(crate) mod fib {
        pub(crate) const DREG: u16 = 1;
        pub(crate) const RESULT: u16 = 2;
        pub(crate) const FLAGS: u16 = 3;
    }
    pub(crate) mod immediate {
        pub(crate) const DREG: u16 = 1;
        pub(crate) const DATA: u16 = 2;
    }
    /// `NFTA_MASQ_*` and `NFTA_REDIR_*`, which have the same meanings and other numbers.
    pub(crate) mod masq {
        pub(crate) const FLAGS: u16 = 1;
        pub(crate) const PROTO_MIN: u16 = 2;
        pub(crate) const PROTO_MAX: u16 = 3;
    }
    pub(crate) mod redir {
        pub(crate) const PROTO_MIN: u16 = 1;
        pub(crate) const PROTO_MAX: u16 = 2;
        pub(crate) const FLAGS: u16 = 3;
    }
    pub(crate) mod nat {
        pub(crate) const TYPE: u16 = 1;
        pub(crate) const FAMILY: u16 = 2;
        pub(crate) const ADDR_MIN: u16 = 3;
        pub(crate) const ADDR_MAX: u16 = 4;
        pub(crate) const PROTO_MIN: u16 = 5;
        pub(crate) const PROTO_MAX: u16 = 6;
        pub(crate) const FLAGS: u16 = 7;
        /// `NF_NAT_RANGE_PROTO_SPECIFIED`
        pub(crate) const WITH_PORTS: u32 = 2;
    }
    pub(crate) mod reject {
        pub(crate) const TYPE: u16 = 1;
        /// One byte.
        pub(crate) const ICMP_CODE: u16 = 2;
    }
}
