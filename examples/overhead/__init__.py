"""What does one training step cost with each penalty, in time and in memory?"""
