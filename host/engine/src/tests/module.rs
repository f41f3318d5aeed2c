//! Core modules that are hostile in ways that no compiler writes, and the probe with some of them at its end.
#![expect(clippy::arithmetic_side_effects, reason = "counts of a few sections")]

use bytes::Bytes;
use wasm_encoder::{
    BlockType, CodeSection, Function, FunctionSection, Instruction, MemorySection, MemoryType,
    Module, RefType, StartSection, TableSection, TableType, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

use super::probe::wasm;

/// A module with nothing but so much memory.
pub(super) fn with_memory(bytes: usize) -> Module {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: u64::try_from(bytes / 65_536).unwrap(),
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut module = Module::new();
    module.section(&memories);
    module
}

/// A table of one function, which may grow.
fn one_table() -> TableSection {
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: 1,
        maximum: None,
        shared: false,
    });
    tables
}

/// A module with nothing but a table.
pub(super) fn with_table() -> Module {
    let tables = one_table();
    let mut module = Module::new();
    module.section(&tables);
    module
}

/// A module whose start runs a function of these locals.
fn with_start(tables: Option<&TableSection>, start: &Function) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut code = CodeSection::new();
    code.function(start);
    let mut module = Module::new();
    module.section(&types).section(&functions);
    if let Some(tables) = tables {
        module.section(tables);
    }
    module
        .section(&StartSection { function_index: 0 })
        .section(&code);
    module
}

/// A module that grows a table until it gets no more, and then gives up.
pub(super) fn that_grows_a_table() -> Module {
    let tables = one_table();
    let mut start = Function::new([]);
    start
        .instruction(&Instruction::Loop(BlockType::Empty))
        .instruction(&Instruction::RefNull(wasm_encoder::HeapType::FUNC))
        .instruction(&Instruction::I32Const(1000))
        .instruction(&Instruction::TableGrow(0))
        .instruction(&Instruction::I32Const(-1))
        .instruction(&Instruction::I32Ne)
        .instruction(&Instruction::BrIf(0))
        .instruction(&Instruction::End)
        .instruction(&Instruction::Unreachable)
        .instruction(&Instruction::End);
    with_start(Some(&tables), &start)
}

/// A module that is small and takes a compiler very long: as many locals as there may be, each alive over thousands of loops.
pub(super) fn that_is_slow_to_compile() -> Module {
    const LOCALS: u32 = 10_000;
    const LOOPS: u32 = 10_000;
    let mut start = Function::new([(LOCALS, ValType::I64)]);
    for turn in 0..LOOPS {
        let (one, other) = (turn % LOCALS, turn.wrapping_mul(7919) % LOCALS);
        start
            .instruction(&Instruction::Loop(BlockType::Empty))
            .instruction(&Instruction::LocalGet(one))
            .instruction(&Instruction::LocalGet(other))
            .instruction(&Instruction::I64Add)
            .instruction(&Instruction::LocalSet(other))
            .instruction(&Instruction::LocalGet(one))
            .instruction(&Instruction::I64Eqz)
            .instruction(&Instruction::BrIf(turn % 100));
    }
    for _ in 0..LOOPS {
        start.instruction(&Instruction::End);
    }
    start.instruction(&Instruction::End);
    with_start(None, &start)
}

/// The probe, with modules that become part of each instance after its own.
pub(super) fn probe_and(modules: &[Module]) -> Bytes {
    let mut component = wasm().to_vec();
    let mut depth = 0_u32;
    let mut count = 0_u32;
    for payload in Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                count += u32::from(depth == 0);
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    for module in modules {
        let bytes = module.clone().finish();
        component.push(1);
        leb(&mut component, u32::try_from(bytes.len()).unwrap());
        component.extend(bytes);
        // One core instance of it, with nothing to import.
        let mut instance = vec![1, 0];
        leb(&mut instance, count);
        instance.push(0);
        component.push(2);
        leb(&mut component, u32::try_from(instance.len()).unwrap());
        component.extend(instance);
        count += 1;
    }
    Bytes::from(component)
}

fn leb(to: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}
