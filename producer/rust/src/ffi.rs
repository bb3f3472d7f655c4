//! The C interface (`sutra/embed.h`), declared by hand. Its header is the contract; `tests/layout.rs` compares every
//! structure, constant and function here with what a C compiler makes of the header.
//!
//! For callers who need what the safe wrapper does not have. All of it is `unsafe` and follows the header's rules.
#![allow(non_camel_case_types, missing_docs)]

use std::mem;
use std::os::raw::{c_char, c_int, c_void};

pub type sutra_status = u32;
pub type sutra_ticket = u64;

pub const SUTRA_ABI_VERSION: u32 = 1;
pub const SUTRA_SPIN_US_DEFAULT: u32 = 30;

pub const SUTRA_NORMALIZE: u32 = 0x01;
pub const SUTRA_RAW: u32 = 0x02;
pub const SUTRA_REJECT: u32 = 0x04;
pub const SUTRA_CACHE_SKIP_LOOKUP: u32 = 0x08;
pub const SUTRA_CACHE_SKIP_STORE: u32 = 0x10;
pub const SUTRA_FAIL_FAST: u32 = 0x20;

/// Opaque.
#[repr(C)]
pub struct sutra_client {
    _opaque: [u8; 0],
}

/// A structure's name and size, and its fields' names, offsets and sizes.
pub type StructLayout = (&'static str, usize, Vec<(&'static str, usize, usize)>);

macro_rules! c_structs {
    ($( $name:ident { $( $field:ident: $type:ty, )* } )*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub struct $name { $( pub $field: $type, )* }

            impl $name {
                /// All zero but for `size`.
                pub fn sized() -> $name {
                    // SAFETY: numbers, pointers and optional function pointers, for all of which zero is a value.
                    let mut zero: $name = unsafe { mem::zeroed() };
                    zero.size = mem::size_of::<$name>() as u32;
                    zero
                }
            }
        )*

        /// What the compiler made of the structures, for the test that compares it with C.
        pub fn struct_layouts() -> Vec<StructLayout> {
            vec![ $( {
                let value = $name::sized();
                let base = &value as *const $name as usize;
                (stringify!($name), mem::size_of::<$name>(), vec![ $(
                    (stringify!($field), &value.$field as *const $type as usize - base, mem::size_of::<$type>()),
                )* ])
            }, )* ]
        }
    };
}

c_structs! {
    sutra_attach_options {
        size: u32,
        slots: u32,
        lanes_max: u32,
        width: u32,
        text_bytes_max: u32,
        timeout_ms: u32,
        spin_us: u32,
        reserved: u32,
        model: *const c_char,
        client_name: *const c_char,
    }
    sutra_info {
        size: u32,
        width: u32,
        tokens_max: u32,
        text_bytes_max: u32,
        slots: u32,
        normalizes: u32,
        engine_pid: u32,
        reserved: u32,
        engine_generation: u64,
        model: [c_char; 128],
        identity: [c_char; 72],
        lanes: u32,
        engines: u32,
        resubmitted: u64,
    }
    sutra_options {
        size: u32,
        flags: u32,
        width: u32,
        ttl_s: u32,
        priority: u32,
        timeout_ms: u32,
        tag: u64,
        data_type: u32,
        truncate_side: u32,
        tokens_max: u32,
        near_threshold: f32,
        model: *const c_char,
        prompt_name: *const c_char,
        prompt: *const c_char,
    }
    sutra_result {
        size: u32,
        status: u32,
        source: u32,
        width: u32,
        vector: *const f32,
        token_count: u32,
        truncated: u32,
        tag: u64,
        stage_ns: [u64; 6],
        retry_after_ms: u32,
        reason: u32,
        ticket: u64,
        data: *const c_void,
        data_type: u32,
        bytes: u32,
        approximate: u32,
        cosine: f32,
        match_id: u64,
    }
    sutra_batch_options {
        size: u32,
        timeout_ms: u32,
        progress: Option<unsafe extern "C" fn(*mut c_void, usize, usize) -> c_int>,
        context: *mut c_void,
        error_texts: *mut c_char,
        error_text_bytes: usize,
    }
}

extern "C" {
    pub fn sutra_attach(
        path: *const c_char,
        options: *const sutra_attach_options,
        client: *mut *mut sutra_client,
    ) -> sutra_status;
    pub fn sutra_detach(client: *mut sutra_client);
    pub fn sutra_get_info(client: *const sutra_client, info: *mut sutra_info) -> sutra_status;
    pub fn sutra_submit(
        client: *mut sutra_client,
        text: *const c_char,
        text_bytes: usize,
        options: *const sutra_options,
        ticket: *mut sutra_ticket,
    ) -> sutra_status;
    pub fn sutra_submit_many(
        client: *mut sutra_client,
        texts: *const *const c_char,
        text_bytes: *const usize,
        count: usize,
        options: *const sutra_options,
        tickets: *mut sutra_ticket,
        submitted: *mut usize,
    ) -> sutra_status;
    pub fn sutra_free_slots(client: *mut sutra_client) -> usize;
    pub fn sutra_wait(
        client: *mut sutra_client,
        ticket: sutra_ticket,
        timeout_ms: u32,
        result: *mut sutra_result,
    ) -> sutra_status;
    pub fn sutra_wait_any(
        client: *mut sutra_client,
        tickets: *const sutra_ticket,
        count: usize,
        timeout_ms: u32,
        index: *mut usize,
        result: *mut sutra_result,
    ) -> sutra_status;
    pub fn sutra_wait_all(
        client: *mut sutra_client,
        tickets: *const sutra_ticket,
        count: usize,
        timeout_ms: u32,
        results: *mut sutra_result,
        result_stride: usize,
    ) -> sutra_status;
    pub fn sutra_take(
        client: *mut sutra_client,
        ticket: sutra_ticket,
        vector: *mut f32,
        vector_floats: usize,
        result: *mut sutra_result,
    ) -> sutra_status;
    pub fn sutra_poll(
        client: *mut sutra_client,
        results: *mut sutra_result,
        result_stride: usize,
        count: usize,
    ) -> usize;
    pub fn sutra_event_fd(client: *mut sutra_client) -> c_int;
    pub fn sutra_cancel(client: *mut sutra_client, ticket: sutra_ticket) -> sutra_status;
    pub fn sutra_cancel_all(client: *mut sutra_client);
    pub fn sutra_release(client: *mut sutra_client, ticket: sutra_ticket);
    pub fn sutra_embed(
        client: *mut sutra_client,
        text: *const c_char,
        text_bytes: usize,
        options: *const sutra_options,
        vector: *mut f32,
        result: *mut sutra_result,
    ) -> sutra_status;
    pub fn sutra_embed_batch(
        client: *mut sutra_client,
        texts: *const *const c_char,
        text_bytes: *const usize,
        count: usize,
        options: *const sutra_options,
        batch: *const sutra_batch_options,
        vectors: *mut f32,
        results: *mut sutra_result,
        result_stride: usize,
    ) -> sutra_status;
    pub fn sutra_abi_version() -> u32;
    pub fn sutra_status_text(status: sutra_status) -> *const c_char;
    pub fn sutra_error_text() -> *const c_char;
}
