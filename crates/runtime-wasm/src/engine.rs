//! The wasmtime engines: one with pools for speed, one without for what does not fit the pools.
//!
//! Both compile to the same code, so one compiled file serves both.

use std::sync::OnceLock;

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    RegallocAlgorithm, WasmBacktraceDetails,
};

use crate::epochs::Epochs;

/// Components in flight at once: requests being answered, held warm instances, running commands. Each has a stack, made
/// when the engine starts, and the kernel's default of 65,530 mappings for a process ends at some 10,900 of them; a
/// quarter of that leaves room for threads, files and databases, and starts in milliseconds.
const COMPONENT_INSTANCES: u32 = 2_500;

/// A component is made of some three core modules.
const CORE_INSTANCES: u32 = 10_000;

/// Linear memories. Each reserves 4 GiB of addresses, so that guests need no bounds checks; the whole is 16 TiB of the
/// 128 that a process has.
const MEMORIES: u32 = 4_000;
const TABLES: u32 = 8_000;
const MEMORY_BYTES_MAX: usize = 1 << 32;

/// A component made by a toolchain has up to a handful of core modules; composed ones more.
const CORE_INSTANCES_PER_COMPONENT: u32 = 24;
const MEMORIES_PER_COMPONENT: u32 = 8;
const TABLES_PER_COMPONENT: u32 = 24;
const TABLE_ELEMENTS: usize = 32_768;

/// What a slot keeps resident for its next user, instead of giving it back to the kernel page by page.
const WARM_BYTES: usize = 64 * 1024;
const WARM_SLOTS: u32 = 64;

/// The stack of a guest and of the host functions it calls.
const STACK_BYTES: usize = 1024 * 1024;
const WASM_STACK_BYTES: usize = 512 * 1024;

/// Both engines and their clock.
pub(crate) struct Engines {
    pooled: Engine,
    roomy: OnceLock<Engine>,
    epochs: Epochs,
}

impl Engines {
    pub(crate) fn new() -> wasmtime::Result<Self> {
        let pooled = match Engine::new(config().allocation_strategy(pools())) {
            Ok(engine) => engine,
            // Address space is limited on some machines (`ulimit -v`); slower is better than not at all.
            Err(error) => {
                tracing::warn!(%error, "wasm instances are not pooled");
                Engine::new(&config())?
            }
        };
        let epochs = Epochs::start(&pooled)?;
        Ok(Self { pooled, roomy: OnceLock::new(), epochs })
    }

    /// Where modules run that fit the pools: all but very unusual ones.
    pub(crate) fn pooled(&self) -> &Engine {
        &self.pooled
    }

    /// Where the others run.
    pub(crate) fn roomy(&self) -> wasmtime::Result<&Engine> {
        if self.roomy.get().is_none() {
            let engine = Engine::new(&config())?;
            self.epochs.also_tick(&engine);
            // Another thread may have been first; then its engine is the one.
            let _ = self.roomy.set(engine);
        }
        self.roomy.get().ok_or_else(|| wasmtime::format_err!("no engine"))
    }

    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .memory_init_cow(true)
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        .wasm_component_model(true)
        // Compilations are bounded by us, whole modules at a time; the rest of the machine is not theirs.
        .parallel_compilation(false);
    config
}

fn pools() -> InstanceAllocationStrategy {
    let mut pools = PoolingAllocationConfig::new();
    pools
        .total_core_instances(CORE_INSTANCES)
        .total_component_instances(COMPONENT_INSTANCES)
        .total_stacks(COMPONENT_INSTANCES + 500)
        .total_memories(MEMORIES)
        .total_tables(TABLES)
        .total_gc_heaps(16)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memories_per_module(MEMORIES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(WARM_BYTES)
        .table_keep_resident(WARM_BYTES);
    InstanceAllocationStrategy::Pooling(pools)
}
