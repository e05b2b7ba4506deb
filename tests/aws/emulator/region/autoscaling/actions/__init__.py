"""The actions of Auto Scaling's API, by what they are about."""
