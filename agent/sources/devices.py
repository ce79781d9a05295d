"""Which block devices count a transfer that another device below them counts again."""

import os


class Devices:
    """Block devices under `{root}/sys`. Answers are kept until `forget`, for a device seldom changes its nature."""

    def __init__(self, root: str = "/") -> None:
        self._sys = os.path.join(root, "sys")
        self._known: dict[str, bool] = {}

    def stacked(self, number: str) -> bool:
        """Whether `major:minor` is laid over other disks (LVM, RAID, dm-crypt) or over a file (loop).

        The kernel accounts a request at such a device and once more at each disk below it. A device of which sysfs
        says nothing counts as a disk of its own.
        """
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._lies_over(os.path.join(self._sys, "dev/block", number))
        return known

    def disks(self) -> list[str]:
        """Names of whole physical disks: those with a bus device behind them.

        Where none has one (some virtual machines), every disk that is neither stacked nor memory (ram, zram).
        """
        block = os.path.join(self._sys, "block")
        names = sorted(os.listdir(block))
        physical = [n for n in names if os.path.exists(os.path.join(block, n, "device"))]
        if physical:
            return physical
        return [n for n in names if not n.startswith(("ram", "zram")) and not self._lies_over(os.path.join(block, n))]

    def identity(self, name: str) -> str:
        """What tells this disk from the next one of the same name: diskseq, before Linux 5.15 major:minor.

        Raises OSError when the disk is gone.
        """
        for file in ("diskseq", "dev"):
            try:
                with open(os.path.join(self._sys, "block", name, file), encoding="ascii") as f:
                    return f.read().strip()
            except FileNotFoundError:
                if file == "dev":
                    raise
        raise AssertionError

    def forget(self) -> None:
        """Look afresh from now on."""
        self._known.clear()

    @staticmethod
    def _lies_over(device: str) -> bool:
        try:
            return bool(os.listdir(os.path.join(device, "slaves"))) or os.path.exists(
                os.path.join(device, "loop/backing_file")
            )
        except OSError:
            return False
