"""Kernels that run steps: a list of them on several threads, and lists of which each thread takes some."""

from __future__ import annotations

SPINS = 2000
"""Looks at the other threads' progress before the processor is given away."""


def run_ir() -> str:
    """IR of ``run(steps, count, thread, threads, counter, give_away)``."""
    return f"""
define void @run(ptr %steps, i64 %count, i64 %thread, i64 %threads, ptr %counter, ptr %give_away) {{
entry:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %step, label %out
step:
  %i = phi i64 [0, %entry], [%next, %following]
  %row = getelementptr [4 x i64], ptr %steps, i64 %i
  %function.at = load i64, ptr %row
  %args.row = getelementptr i64, ptr %row, i64 1
  %args.at = load i64, ptr %args.row
  %begin.row = getelementptr i64, ptr %row, i64 2
  %begin = load i64, ptr %begin.row
  %end.row = getelementptr i64, ptr %row, i64 3
  %end = load i64, ptr %end.row
  %units = sub i64 %end, %begin
  %before = mul i64 %units, %thread
  %first = sdiv i64 %before, %threads
  %behind = add i64 %before, %units
  %last = sdiv i64 %behind, %threads
  %from = add i64 %begin, %first
  %to = add i64 %begin, %last
  %function = inttoptr i64 %function.at to ptr
  %args = inttoptr i64 %args.at to ptr
  call void %function(ptr %args, i64 %from, i64 %to)
  %next = add i64 %i, 1
  %alone = icmp eq i64 %threads, 1
  br i1 %alone, label %following, label %arrive
arrive:
  %old = atomicrmw add ptr %counter, i64 1 seq_cst
  %wanted = mul i64 %next, %threads
  br label %wait
wait:
  %spins = phi i64 [0, %arrive], [%spun, %again], [0, %tired]
  %now = load atomic i64, ptr %counter seq_cst, align 8
  %all = icmp sge i64 %now, %wanted
  br i1 %all, label %following, label %again.or.tired
again.or.tired:
  %spun = add i64 %spins, 1
  %long = icmp sgt i64 %spun, {SPINS}
  br i1 %long, label %tired, label %again
again:
  br label %wait
tired:
  call void %give_away()
  br label %wait
following:
  %more = icmp slt i64 %next, %count
  br i1 %more, label %step, label %out
out:
  ret void
}}
"""


def sequence_ir() -> str:
    """IR of a kernel whose units are lists of steps for ``run``; its arguments the address of that, and for each list
    where it is and how long."""
    return """
define void @sequence(ptr %args, i64 %begin, i64 %end) {
entry:
  %run.at = load i64, ptr %args
  %run = inttoptr i64 %run.at to ptr
  %lists.row = getelementptr i64, ptr %args, i64 1
  %lists.at = load i64, ptr %lists.row
  %lists = inttoptr i64 %lists.at to ptr
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %unit, label %out
unit:
  %i = phi i64 [%begin, %entry], [%next, %unit]
  %row = getelementptr [2 x i64], ptr %lists, i64 %i
  %steps.at = load i64, ptr %row
  %steps = inttoptr i64 %steps.at to ptr
  %count.row = getelementptr i64, ptr %row, i64 1
  %count = load i64, ptr %count.row
  call void %run(ptr %steps, i64 %count, i64 0, i64 1, ptr null, ptr null)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %unit, label %out
out:
  ret void
}
"""
