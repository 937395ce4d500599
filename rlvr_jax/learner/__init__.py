"""The learner: rewards, advantages, losses, and the update of the policy."""
