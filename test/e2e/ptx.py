"""Runs PTX without a GPU: one workgroup, its warps in any order, and looks whether that order matters.

`Kernel` reads one entry of a file, `Workgroup` runs it. Values are those that the instructions yield, but for the sums of `wgmma`, which
stay as they are. What threads do in workgroup memory is ordered by vector clocks (happens-before, as in L. Lamport, "Time, clocks, and the
ordering of events in a distributed system", 1978): a warp, its asynchronous copies and what its products read are three agents; barriers
of a workgroup, `mbarrier`s and waits for products pass clocks on. A read or a write that is not ordered with another one of the same
word is a `Race`, also where this time nothing went wrong; so are words that the matrix unit reads and nobody fenced. Lanes of one warp
are not ordered among each other.
"""
import random
import re

import numpy as np

LANES = 32
TYPES = {"b16": np.uint16, "u16": np.uint16, "s16": np.int16, "f16": np.float16,
         "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "f32": np.float32,
         "b64": np.uint64, "u64": np.uint64, "s64": np.int64, "pred": bool}
REGISTERS = {"%p": bool, "%rs": np.uint16, "%r": np.uint32, "%rd": np.uint64}
COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
          "or": np.bitwise_or, "xor": np.bitwise_xor}
#: Instructions that all lanes of a warp come to together.
TOGETHER = ("shfl", "stmatrix", "wgmma", "bar")


class Race(AssertionError):
    """Two accesses of a word of workgroup memory that nothing orders, or threads that wait for each other for good."""


class Kernel:
    """The instructions of `entry`: (line, opcode, (negated, predicate) or None, operands)."""

    def __init__(self, text, entry):
        start = text.index(f".visible .entry {entry}(")
        self.lines = text[start:text.index("\n}\n", start)].split("\n")
        header = "\n".join(self.lines[:30])
        self.threads = int(re.search(r"\.maxntid (\d+)", header)[1])
        self.parameters = len(re.findall(r"^\s*\.param ", header, re.M))
        self.code, self.labels = [], {}
        for number, line in enumerate(self.lines):
            line = line.split("//")[0].strip()
            if label := re.fullmatch(r"(\$\w+):", line):
                self.labels[label[1]] = len(self.code)
            # Of the loop around a `try_wait` the instruction alone is left: it blocks.
            if not line.endswith(";") or line[0] in ".{" or re.search(r"\b(DONE|LAB_WAIT)\b", line):
                continue
            predicate = re.match(r"@(!?)(%p\d+)\s+(.*)", line)
            opcode, _, rest = (predicate[3] if predicate else line)[:-1].strip().replace("\t", " ").partition(" ")
            operands = [o.strip() for o in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s{\[][^,]*", rest)]
            self.code.append((number, opcode, predicate and (predicate[1] == "!", predicate[2]), operands))

    def without(self, line):
        """The same kernel without the instruction of a line."""
        other = object.__new__(Kernel)
        other.__dict__.update(self.__dict__)
        at = next(i for i, step in enumerate(self.code) if step[0] == line)
        other.code = self.code[:at] + self.code[at + 1:]
        other.labels = {name: to - (to > at) for name, to in self.labels.items()}
        return other

    def lines_of(self, opcode):
        return [step[0] for step in self.code if step[1].startswith(opcode)]


class Memory:
    """Global memory: arrays at addresses far from each other."""

    def __init__(self):
        self.arrays = []

    def add(self, array):
        self.arrays.append(np.ascontiguousarray(array).view(np.uint8).reshape(-1).copy())
        return len(self.arrays) << 40

    def bytes(self, first, last):
        number = (int(first) >> 40) - 1
        assert 0 <= number < len(self.arrays) and int(last) - (number + 1 << 40) < len(self.arrays[number]), hex(int(first))
        return self.arrays[number], number + 1 << 40


class Order:
    """Who has seen what: a clock for each agent, and for each word of workgroup memory the last write and the reads since."""

    def __init__(self, agents, words):
        self.clocks = np.eye(agents, dtype=np.int64)
        self.writer, self.written = np.full(words, -1), np.zeros(words, np.int64)
        self.line, self.fenced = np.zeros(words, np.int64), np.ones(words, bool)
        self.reads = np.zeros((words, agents), np.int64)

    def see(self, agent, clock):
        np.maximum(self.clocks[agent], clock, out=self.clocks[agent])

    def tell(self, agent):
        """What others see when they see this; later steps of `agent` are not in it."""
        clock = self.clocks[agent].copy()
        self.clocks[agent, agent] += 1
        return clock

    def _settle(self, agent, words, line, what):
        unseen = self.clocks[agent][self.writer[words]] < self.written[words]
        if (self.writer[words] < 0).any():
            if what == "read":
                raise Race(f"line {line} reads what nobody has written")
        elif unseen.any():
            raise Race(f"line {line} may {what} before or after line {self.line[words[unseen][0]]} writes")

    def read(self, agent, words, line, by_unit=False):
        self._settle(agent, words, line, "read")
        if by_unit and not self.fenced[words].all():
            raise Race(f"line {line}: the unit reads what line {self.line[words[~self.fenced[words]][0]]} writes, without a fence")
        self.reads[words, agent] = self.clocks[agent, agent]

    def write(self, agent, words, line):
        self._settle(agent, words, line, "write")
        if (self.reads[words] > self.clocks[agent]).any():
            raise Race(f"line {line} writes what somebody may still read")
        self.writer[words], self.written[words], self.line[words] = agent, self.clocks[agent, agent], line
        self.fenced[words] = False
        self.reads[words] = 0


class Barrier:
    """An `mbarrier`, or a barrier of a workgroup whose phases warps count by themselves."""

    def __init__(self, count, agents):
        self.count = self.left = count
        self.phase, self.coming, self.seen = 0, np.zeros(agents, np.int64), np.zeros(agents, np.int64)

    def arrive(self, clock, count, line):
        np.maximum(self.coming, clock, out=self.coming)
        self.left -= count
        if self.left < 0:
            raise Race(f"line {line} arrives where nobody is missing")
        if self.left == 0:
            self.left, self.phase, self.seen = self.count, self.phase + 1, self.coming.copy()


class Warp:
    """The registers of 32 threads and where each of them is."""

    def __init__(self, group, number):
        self.group, self.number = group, number
        self.kernel, self.order = group.kernel, group.order
        self.registers = {"%laneid": np.arange(LANES, dtype=np.uint32),
                          "%tid.x": np.arange(LANES, dtype=np.uint32) + np.uint32(LANES * number),
                          "%ctaid.x": np.full(LANES, group.block, np.uint32)}
        self.at, self.done = np.zeros(LANES, np.int64), np.zeros(LANES, bool)
        #: Copies and their arrivals, in order; clocks of products that were committed; the phase of the barrier it waits for.
        self.copies, self.products, self.waits = [], [], None

    @property
    def copier(self):
        return self.group.warps_count + self.number

    @property
    def unit(self):
        return 2 * self.group.warps_count + self.number

    # Operands

    @staticmethod
    def _kind(name):
        return REGISTERS[re.match(r"%[a-z]+", name)[0]]

    def get(self, operand, kind):
        kind = TYPES[kind]
        if operand.startswith("%"):
            if operand not in self.registers:
                self.registers[operand] = np.zeros(LANES, self._kind(operand))
            value = self.registers[operand]
            same = value.dtype.itemsize == np.dtype(kind).itemsize
            return value.view(kind) if same else value.astype(kind)
        if operand.startswith("workgroup_memory"):
            return np.full(LANES, int(operand.partition("+")[2] or 0), kind)
        if operand.startswith("0f"):
            return np.full(LANES, int(operand[2:], 16), np.uint32).view(kind)
        bits = 8 * np.dtype(kind).itemsize
        return np.full(LANES, int(operand, 0) & (1 << bits) - 1, f"u{bits // 8}").view(kind)

    def put(self, register, value, mask):
        kind = self._kind(register)
        value = np.ascontiguousarray(value)
        if kind is not bool:
            value = value.view(kind) if value.dtype.itemsize == np.dtype(kind).itemsize else value.astype(kind)
        self.registers[register] = np.where(mask, value, self.registers.get(register, np.zeros(LANES, kind)))

    def address(self, operand):
        base, _, offset = operand.strip("[]").partition("+")
        base = base.strip()
        kind = "b64" if base.startswith("%rd") else "b32"
        start = self.get(base, kind).astype(np.int64) if base.startswith("%") else np.zeros(LANES, np.int64)
        return start + int(offset or 0)

    @staticmethod
    def words(addresses, size):
        return np.unique((addresses[:, None] + np.arange(0, size, 2)) // 4)

    # Steps

    def _next(self):
        """The lanes that go on together, and where; those of the lowest instruction that does not block."""
        live = ~self.done
        for at in np.unique(self.at[live]):
            lanes = live & (self.at == at)
            if at >= len(self.kernel.code):
                return lanes, at
            _, opcode, _, operands = self.kernel.code[at]
            if opcode.startswith(TOGETHER) and not (lanes == live).all():
                continue
            if opcode.startswith("mbarrier.try_wait"):
                addresses, parities = self.address(operands[1]), self.get(operands[2], "u32")
                for lane in np.flatnonzero(lanes):
                    barrier = self.group.barrier_at(addresses[lane])
                    if barrier.phase & 1 != parities[lane]:
                        return lanes & (addresses == addresses[lane]) & (parities == parities[lane]), at
                continue
            if opcode.startswith("bar.sync") and not self._meet(operands):
                continue
            return lanes, at
        return None

    def _meet(self, operands):
        """Whether all that a barrier of the workgroup is for have come to it."""
        count = int(operands[1]) // LANES if len(operands) > 1 else self.group.warps_count
        barrier = self.group.named.setdefault(operands[0], Barrier(count, len(self.order.clocks)))
        if self.waits is None:
            self.waits = barrier.phase
            barrier.arrive(self.order.tell(self.number), 1, 0)
        if barrier.phase == self.waits:
            return False
        self.waits = None
        self.order.see(self.number, barrier.seen)
        return True

    def step(self):
        """One instruction of some lanes; false if none can go on."""
        ready = self._next()
        if ready is None:
            return False
        lanes, at = ready
        self.at[lanes] = at + 1
        if at >= len(self.kernel.code):
            self.done |= lanes
            return True
        line, opcode, predicate, operands = self.kernel.code[at]
        if predicate:
            value = self.registers[predicate[1]]
            lanes = lanes & (~value if predicate[0] else value)
        parts = opcode.split(".")
        if parts[0] == "bra":
            self.at[lanes] = self.kernel.labels[operands[0]]
        elif parts[0] == "ret":
            self.done |= lanes
        elif lanes.any():
            getattr(self, "_" + parts[0], self._compute)(line, parts, operands, lanes)
        return True

    def _compute(self, _, parts, operands, lanes):
        base, kind = parts[0], parts[-1]
        if kind == "f16x2":
            x, *more = (self.get(o, "b32").view(np.float16).astype(np.float32) for o in operands[1:])
            value = x * more[0] + more[1] if base == "fma" else BINARY[base](x, more[0])
            value = value.astype(np.float16).view(np.uint32)
        elif base in ("fma", "mad"):
            wide = np.float64 if kind == "f32" else TYPES[kind]
            x, y, z = (self.get(o, kind).astype(wide) for o in operands[1:])
            value = (x * y + z).astype(TYPES[kind])
        elif base == "mul" and parts[1] in ("wide", "hi"):
            value = self.get(operands[1], kind).astype(np.uint64) * self.get(operands[2], kind).astype(np.uint64)
            value = (value >> np.uint64(32)).astype(np.uint32) if parts[1] == "hi" else value
        elif base in ("shl", "shr"):
            x = self.get(operands[1], kind)
            value = (np.left_shift if base == "shl" else np.right_shift)(x, self.get(operands[2], "u32").astype(x.dtype))
        elif base in BINARY:
            value = BINARY[base](self.get(operands[1], kind), self.get(operands[2], kind))
        elif base == "neg":
            value = -self.get(operands[1], kind)
        elif base == "not":
            value = ~self.get(operands[1], kind)
        elif base == "ex2":
            value = np.exp2(self.get(operands[1], kind).astype(np.float64)).astype(np.float32)
        elif base == "setp":
            value = COMPARE[parts[1]](self.get(operands[1], kind), self.get(operands[2], kind))
        elif base == "selp":
            value = np.where(self.registers[operands[3]], self.get(operands[1], kind), self.get(operands[2], kind))
        elif base == "bfe":
            value = self.get(operands[1], kind) >> TYPES[kind](int(operands[2])) & TYPES[kind]((1 << int(operands[3])) - 1)
        elif base == "shf":
            assert parts[1:3] == ["l", "wrap"], parts
            low, high, by = (self.get(o, "u32").astype(np.uint64) for o in operands[1:])
            value = ((high << np.uint64(32) | low) << (by & np.uint64(31)) >> np.uint64(32)).astype(np.uint32)
        elif base == "lop3":
            x = [self.get(o, "b32") for o in operands[1:4]]
            value = np.zeros(LANES, np.uint32)
            for row in range(8):
                if int(operands[4], 0) >> row & 1:
                    value |= np.bitwise_and.reduce([v if row >> 2 - i & 1 else ~v for i, v in enumerate(x)])
        else:
            raise NotImplementedError(".".join(parts))
        self.put(operands[0], value, lanes)

    def _mov(self, _, parts, operands, lanes):
        if operands[0].startswith("{"):
            value = self.get(operands[1], "b32").view(np.uint16).reshape(LANES, 2)
            for register, half in zip(operands[0].strip("{}").split(","), value.T):
                self.put(register.strip(), half, lanes)
        elif operands[1].startswith("{"):
            low, high = (self.get(o.strip(), "b16").astype(np.uint32) for o in operands[1].strip("{}").split(","))
            self.put(operands[0], high << np.uint32(16) | low, lanes)
        elif parts[-1] == "pred" and not operands[1].startswith("%"):
            self.put(operands[0], np.full(LANES, operands[1] != "0"), lanes)
        else:
            self.put(operands[0], self.get(operands[1], parts[-1]), lanes)

    def _cvt(self, _, parts, operands, lanes):
        if parts[-2:] == ["f16x2", "f32"]:
            high, low = (self.get(o, "f32").astype(np.float16).view(np.uint16).astype(np.uint32) for o in operands[1:])
            value = high << np.uint32(16) | low
        else:
            value = self.get(operands[1], parts[-1]).astype(TYPES[parts[-2]])
        self.put(operands[0], value, lanes)

    def _shfl(self, _, parts, operands, lanes):
        by = self.get(operands[2], "u32").astype(np.int64)
        source = np.arange(LANES) ^ by if parts[2] == "bfly" else by & LANES - 1
        self.put(operands[0].split("|")[0], self.get(operands[1], "b32")[source], lanes)

    # Memory

    def _access(self, line, parts, operands, lanes, writes):
        width = next((int(p[1]) for p in parts if p in ("v2", "v4")), 1)
        registers = [r.strip() for r in operands[writes].strip("{}").split(",")]
        kind = TYPES[parts[-1]]
        size = np.dtype(kind).itemsize
        addresses = self.address(operands[not writes])[lanes]
        assert (addresses % (width * size) == 0).all(), f"line {line} is misaligned"
        if "shared" in parts:
            memory, base = self.group.shared, 0
            (self.order.write if writes else self.order.read)(self.number, self.words(addresses, width * size), line)
        else:
            memory, base = self.group.memory.bytes(addresses.min(), addresses.max() + width * size - 1)
        for i, register in enumerate(registers):
            places = (addresses - base)[:, None] + i * size + np.arange(size)
            if writes:
                memory[places] = np.ascontiguousarray(self.get(register, parts[-1])[lanes]).view(np.uint8).reshape(-1, size)
            else:
                value = np.zeros(LANES, kind)
                value[lanes] = np.ascontiguousarray(memory[places]).view(kind)[:, 0]
                self.put(register, value, lanes)

    def _ld(self, line, parts, operands, lanes):
        if parts[1] == "param":
            number = int(re.search(r"param_(\d+)", operands[1])[1])
            self.put(operands[0], np.full(LANES, self.group.arguments[number], np.uint64), lanes)
        else:
            self._access(line, parts, operands, lanes, writes=False)

    def _st(self, line, parts, operands, lanes):
        self._access(line, parts, operands, lanes, writes=True)

    def _stmatrix(self, line, parts, operands, lanes):
        assert parts[3:5] == ["m8n8", "x4"] and lanes.all(), parts
        rows = self.address(operands[0])
        self.order.write(self.number, self.words(rows, 16), line)
        for i, register in enumerate(operands[1].strip("{}").split(",")):
            words = self.get(register.strip(), "b32").view(np.uint8).reshape(8, 16)
            self.group.shared[rows[8 * i:8 * i + 8, None] + np.arange(16)] = words

    def _cp(self, line, parts, operands, lanes):
        clock = self.order.clocks[self.number].copy()
        if "mbarrier" in parts:
            clock = self.order.tell(self.number)
            self.copies.append((clock, line, self.address(operands[0])[lanes], None))
        else:
            self.copies.append((clock, line, self.address(operands[0])[lanes], self.address(operands[1])[lanes]))

    def copy(self):
        """The next of what is on its way; false if nothing is."""
        if not self.copies:
            return False
        clock, line, to, source = self.copies.pop(0)
        self.order.see(self.copier, clock)
        if source is None:
            for address in to:
                self.group.barrier_at(address).arrive(self.order.clocks[self.copier], 1, line)
            self.order.tell(self.copier)
            return True
        memory, base = self.group.memory.bytes(source.min(), source.max() + 15)
        self.order.write(self.copier, self.words(to, 16), line)
        self.group.shared[to[:, None] + np.arange(16)] = memory[(source - base)[:, None] + np.arange(16)]
        return True

    def _mbarrier(self, line, parts, operands, lanes):
        if parts[1] == "init":
            count = int(self.get(operands[1], "u32")[lanes][0])
            self.group.barriers[self.address(operands[0])[lanes][0]] = Barrier(count, len(self.order.clocks))
        elif parts[1] == "arrive":
            clock = self.order.tell(self.number)
            for address in self.address(operands[1])[lanes]:
                self.group.barrier_at(address).arrive(clock, 1, line)
        else:
            self.order.see(self.number, self.group.barrier_at(self.address(operands[1])[lanes][0]).seen)

    def _fence(self, _, parts, operands, lanes):
        if "proxy" in parts:
            self.order.fenced[self.order.writer == self.number] = True

    def _wgmma(self, line, parts, operands, _):
        if parts[1] == "mma_async":
            # An image of lines of 128 bytes, 16-byte pieces exchanged by the row: 32 bytes of each.
            descriptor = next(o for o in operands if o.startswith("%rd"))
            start = int(self.get(descriptor, "u64")[0] & np.uint64(0x3fff)) * 16
            rows = np.arange(int(re.fullmatch(r"m64n(\d+)k16", parts[4])[1]))
            pieces = start % 128 // 16 + np.arange(2)
            places = start // 1024 * 1024 + rows[:, None] * 128 + (pieces[None] ^ rows[:, None] % 8) * 16
            self.order.see(self.unit, self.order.clocks[self.number])
            self.order.read(self.unit, self.words(places.ravel(), 16), line, by_unit=True)
        elif parts[1] == "commit_group":
            self.products.append(self.order.tell(self.unit))
        elif parts[1] == "wait_group":
            while len(self.products) > int(operands[0]):
                self.order.see(self.number, self.products.pop(0))

    def _bar(self, _, parts, operands, lanes):
        """Barriers have been met, and lanes of a warp are not ordered."""

    _griddepcontrol = _setmaxnreg = _bar


class Workgroup:
    """One workgroup that runs `kernel`: with `seed` in an order of its own."""

    def __init__(self, kernel, arguments, memory, block=0, seed=0, shared_bytes=232448):
        assert kernel.parameters == len(arguments)
        self.kernel, self.arguments, self.memory, self.block = kernel, arguments, memory, block
        self.warps_count = kernel.threads // LANES
        self.shared = np.zeros(shared_bytes, np.uint8)
        self.order = Order(3 * self.warps_count, shared_bytes // 4)
        self.barriers, self.named = {}, {}
        self.warps = [Warp(self, i) for i in range(self.warps_count)]
        self.random = random.Random(seed)

    def barrier_at(self, address):
        if address not in self.barriers:
            raise Race(f"nobody has made a barrier at {address} yet")
        return self.barriers[address]

    def run(self):
        stuck = 0
        while any(not w.done.all() or w.copies for w in self.warps):
            warp = self.random.choice(self.warps)
            moved = False
            for step, share in ((warp.copy, 0.4), (warp.step, 1.0)):
                if self.random.random() < share:
                    for _ in range(self.random.randint(1, 300)):
                        if (step == warp.step and warp.done.all()) or not step():
                            break
                        moved = True
            stuck = 0 if moved else stuck + 1
            if stuck > 100 * self.warps_count:
                lines = sorted({int(self.kernel.code[a][0]) for w in self.warps for a in w.at[~w.done]})
                raise Race(f"all wait for each other, at lines {lines}")
