"""Runs in the virtual machine: drives a device in steps as a back end would, and tells what came.

    python -m tests.vm.steps NODE STORY FOLDER

What is told is JSON, a line each: where a story pauses, until FOLDER has a file of that name, and
at last what it has seen.
"""
