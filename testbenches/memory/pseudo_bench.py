"""Runs the native bench of an HBM pseudo-channel with seeds of a test, alone or beside its twin."""
import os
import random

from cosim import hbm
from rtl.memory.hbm.timing import HbmTiming
from testbenches.twins import Twins

ROWS = 16
T = HbmTiming()
SMALL = HbmTiming(bl=1, cl=7, cwl=3, rcdrd=9, rcdwr=5, rp=6, ras=12, rc=19, wr=8, rtp=3, faw=11,
                  rrds=2, rrdl=3, wtrs=3, wtrl=5, rtw=8, ccds=1, ccdl=3, rfc=60, rfcpb=25,
                  rrefd=4, refi=640)


def run(pattern, count, *, timing=T, depth=64, patience=1024, all_banks=False, twins=False,
        rows=ROWS, **options):
    """Run a pattern of requests; gives what the bench measured. Fails on anything it found."""
    seed = int(os.environ.get("MXLET_SEED", random.getrandbits(31)))
    print(f"seed {seed}: {pattern} {count} {options}")
    return hbm.run(pattern, count, timing=timing, rows=rows, seed=seed,
                   wrap=Twins if twins else None, channel={
                       "depth": depth, "patience": patience, "all_banks": all_banks}, **options)


def report(name, measured, timing=T):
    """Print what was reached and where the rest went; all clocks must be accounted for."""
    parts = {part: round(share, 4) for part, share in hbm.shares(measured).items()}
    print(f"{name}: {100 * hbm.efficiency(measured, timing):.1f} per cent of the pin rate, at most "
          f"{measured['most_under_way']} requests under way; latency of reads "
          f"{measured['mean_read']}, at most {measured['worst_read']} clk; hbm clocks: {parts}; "
          f"{measured['ns_per_active_clock']} ns per active clock")
